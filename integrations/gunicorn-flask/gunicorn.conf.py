"""gunicorn reads this file from the folder it is started in."""

import os

worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
# For requests only: an open stream takes none.
threads = 4
# Nothing here uses gunicornc, and the socket would be left in the home directory.
control_socket_disable = True
