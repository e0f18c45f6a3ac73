"""What a WSGI request says of its server and of its connection."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from typing import Any

from . import sockets

__all__ = ["abort", "connection_fields", "port"]


def port(environ: Mapping[str, Any]) -> int | None:
    """Where the request came to; None where that isn't said."""
    return sockets.port_of(("", environ.get("SERVER_PORT")))


def abort(environ: Mapping[str, Any]) -> None:
    """Breaks the request's connection off, so that a write to a client that doesn't read ends.

    Nothing happens where neither the socket nor the client's port is known.
    """
    connection = environ.get("gunicorn.socket")
    if connection is None:
        client = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
        sockets.cut(("", environ.get("SERVER_PORT")), client)
        return
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def connection_fields(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a head says of the connection, which other servers see to and PEP 3333 leaves to them.

    gevent's pywsgi keeps it while it stops, also under gunicorn: clients would come back on it to
    the worker that is on its way out, for as long as it waits for them.
    """
    is_pywsgi = str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/")
    return [("Connection", "close")] if is_pywsgi else []
