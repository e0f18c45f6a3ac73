"""A program that serves an application with cheroot, as CherryPy does: <port> <module:name>."""

from __future__ import annotations

import signal
import sys
import threading

from cheroot.wsgi import Server
from werkzeug.utils import import_string

port, name = sys.argv[1:]
server = Server(("127.0.0.1", int(port)), import_string(name), numthreads=4, max=4)
# stop() waits for the thread that is interrupted here.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
server.start()
