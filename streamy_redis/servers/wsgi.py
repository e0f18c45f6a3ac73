"""What a WSGI request says of its server and of its connection."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from . import gunicorn, sockets

__all__ = ["abort", "close_behind", "connection_fields", "port", "swap_user_timeout"]

# What Werkzeug's ProxyFix puts another value in the place of.
_BEFORE_PROXY_FIX = "werkzeug.proxy_fix.orig"
# Of a connection that is closed, or that the client has left.
_GONE = (errno.EBADF, errno.ENOTCONN)


def port(environ: Mapping[str, Any]) -> int | None:
    """Where the request came to; None where that isn't said."""
    return sockets.port_of(("", _served(environ, "SERVER_PORT")))


def abort(environ: Mapping[str, Any]) -> bool:
    """Breaks the request's connection off, also while it is written to.

    What was written before still goes to a client that reads. Not so by HTTP/1.0: a body ends with
    its connection there, and only a reset doesn't look like an end.

    False where neither the socket nor the client's port is known, where the connection carries
    other requests as well (HTTP/2), and where the process has no descriptor left.
    """
    if _is_shared(environ):
        return False
    abruptly = environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    connection = _shown(environ)
    if connection is None:
        return sockets.cut(*_ends(environ), abruptly=abruptly)
    # A duplicate: gevent raises an error of its own where another greenlet waits for the socket.
    try:
        with sockets.duplicate(connection.fileno()) as duplicate:
            sockets.shut_down(duplicate, abruptly=abruptly)
    except OSError as exc:
        return exc.errno in _GONE
    return True


def swap_user_timeout(environ: Mapping[str, Any], was: int, to: int) -> None:
    """Says how long a client may let TCP wait for it, if that is what was said before.

    Nothing happens where the request's connection can't be broken off either.

    Args:
        was, to: milliseconds; 0 is the kernel's own.
    """
    if _is_shared(environ):
        return
    shown = _shown(environ)
    with contextlib.suppress(OSError):
        if shown is not None:
            with sockets.duplicate(shown.fileno()) as connection:
                sockets.swap_user_timeout(connection, was, to)
            return
        # At the end of a stream many may look at once, and none of them is new.
        for connection in sockets.between(*_ends(environ), came_just_now=was == 0):
            sockets.swap_user_timeout(connection, was, to)


def _is_shared(environ: Mapping[str, Any]) -> bool:
    """Whether its connection carries other requests as well."""
    return environ.get("SERVER_PROTOCOL") not in ("HTTP/1.0", "HTTP/1.1")


def _shown(environ: Mapping[str, Any]) -> Any:
    """The socket, as far as the server shows it."""
    return environ.get("gunicorn.socket", environ.get("werkzeug.socket"))


def _ends(environ: Mapping[str, Any]) -> tuple[sockets.Address, sockets.Address]:
    """The server's address and the client's, of which the first has no host."""
    client = _served(environ, "REMOTE_ADDR"), _served(environ, "REMOTE_PORT")
    return ("", port(environ)), client


def close_behind(environ: Mapping[str, Any], start_response: object) -> None:
    """Lets gunicorn close the connection behind the response that is made now, at once.

    A kept one would hold its descriptor. So would one whose client doesn't close it, for 2 s in
    which a worker of threads accepts nobody: it waits for the end of what is sent, which is here.
    """
    if _is_shared(environ):
        return
    gunicorn.close_behind(start_response)
    connection = environ.get("gunicorn.socket")
    if isinstance(connection, socket.socket) and not isinstance(connection, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RD)


def _served(environ: Mapping[str, Any], name: str) -> Any:
    """A value as the server had it: that of the connection itself, not of a proxy's client."""
    before = environ.get(_BEFORE_PROXY_FIX, {}).get(name)
    return environ.get(name) if before is None else before


def connection_fields(environ: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a head says of the connection, which other servers see to and PEP 3333 leaves to them.

    gevent's pywsgi keeps it while it stops, also under gunicorn: clients would come back on it to
    the worker that is on its way out, for as long as it waits for them.
    """
    is_pywsgi = str(environ.get("SERVER_SOFTWARE", "")).startswith("gevent/")
    return [("Connection", "close")] if is_pywsgi else []
