"""A program that serves an application with waitress, and stops it: <port> <module:name>."""

from __future__ import annotations

import signal
import sys
import threading

from waitress import serve
from werkzeug.utils import import_string

port, name = sys.argv[1:]
streams = import_string(f"{name.partition(':')[0]}:streams")


def stop(*_: object) -> None:
    # waitress waits five seconds for what is open, and listens meanwhile.
    threading.Thread(target=streams.close).start()
    sys.exit()


signal.signal(signal.SIGTERM, stop)
serve(import_string(name), host="127.0.0.1", port=int(port), threads=4)
