"""A program that serves an application with gevent's own server: <port> <module:name>."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402
import sys  # noqa: E402

import gevent  # noqa: E402
from gevent.pywsgi import WSGIServer  # noqa: E402
from werkzeug.utils import import_string  # noqa: E402

port, name = sys.argv[1:]
server = WSGIServer(("127.0.0.1", int(port)), import_string(name))
# It cuts what is open after so many seconds; streams have ended by then.
server.stop_timeout = 30
gevent.signal_handler(signal.SIGTERM, server.stop)
server.serve_forever()
