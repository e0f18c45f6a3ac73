"""What a WSGI request says of its server and of its connection."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any

from . import sockets

__all__ = ["abort", "connection_fields", "port"]


def port(environ: Mapping[str, Any]) -> int | None:
    """Where the request came to; None where that isn't said."""
    return sockets.port_of(("", environ.get("SERVER_PORT")))


def abort(environ: Mapping[str, Any]) -> bool:
    """Breaks the request's connection off, also while it is written to.

    What was written before still goes to a client that reads. False where neither the socket nor
    the client's port is known.
    """
    connection = environ.get("gunicorn.socket", environ.get("werkzeug.socket"))
    if connection is None:
        client = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
        return sockets.cut(("", environ.get("SERVER_PORT")), client, abruptly=False)
    # A duplicate: gevent raises an error of its own where another greenlet waits for the socket.
    # What can't be duplicated any more is closed.
    with (
        contextlib.suppress(OSError),
        socket.socket(fileno=os.dup(connection.fileno())) as duplicate,
    ):
        sockets.shut_down(duplicate, abruptly=False)
    return True


def connection_fields(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a head says of the connection, which other servers see to and PEP 3333 leaves to them.

    gevent's pywsgi keeps it while it stops, also under gunicorn: clients would come back on it to
    the worker that is on its way out, for as long as it waits for them.
    """
    is_pywsgi = str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/")
    return [("Connection", "close")] if is_pywsgi else []
