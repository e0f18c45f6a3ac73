"""The connection of an ASGI request, which no server shows.

It is looked for behind receive() and send(), through whatever middlewares wrap them, then among
what uvicorn's servers answer in this event loop, then among the sockets of the process. What is
found is believed only if it is this request's: another client must never be cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from . import gunicorn, hypercorn, sockets, uvicorn
from .reach import objects_behind
from .shown import Shown, Transport

__all__ = ["Connection"]

# Seconds between two times at which those are looked for that aren't shown: a look costs as much as
# there are connections, and is good for all that have come since.
_LOOK_INTERVAL = 1.0
# Seconds that one is older by then at least: what sockets.py has seen before doesn't show it.
_LOOK_DELAY = 0.2


class Connection:
    """What can be told of the connection of one request.

    Args:
        scope, receive, send: as the endpoint has them, whatever middlewares made of them.
    """

    __slots__ = ("_look", "_made_at", "_receive", "_scope", "_send", "_user_timeout")

    def __init__(
        self, scope: Mapping[str, Any], receive: Callable[[], Any], send: Callable[..., Any]
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._made_at = time.monotonic()
        self._user_timeout = 0
        # It isn't shown, and soon it is looked for.
        self._look: asyncio.TimerHandle | None = None

    @property
    def _version(self) -> str:
        """Of HTTP. granian's name for HTTP/1.0 is 1."""
        version = str(self._scope.get("http_version"))
        return "1.0" if version == "1" else version

    @property
    def port(self) -> int | None:
        """Where the request came to; None for a unix socket."""
        return sockets.port_of(self._scope.get("server"))

    def behind(self) -> Shown | None:
        """What uvicorn, gunicorn or hypercorn shows; None where neither callable leads there."""
        # One behind the other: what a server's send() leads to may be more than is looked at.
        objects = chain(objects_behind(self._receive), objects_behind(self._send))
        reached = (_shown_by(each) for each in objects)
        return next(filter(self._is_mine, reached), None)

    def abort(self) -> None:
        """Breaks it off, and drops what is unsent, for which a server would wait otherwise.

        Nothing happens where it isn't found.
        """
        self._cut(abruptly=True)

    def close(self) -> bool:
        """Breaks it off, and says whether it could. receive() says so then.

        What is unsent is written before, as far as asyncio or the kernel holds it. Not so by
        HTTP/1.0: a body ends with its connection there, and only a reset doesn't look like an end.

        For an endpoint to return, or to raise, is not enough: middlewares such as Starlette's
        BaseHTTPMiddleware send the last chunk then, and other servers log an error.
        """
        return self._cut(abruptly=self._version == "1.0")

    def set_user_timeout(self, milliseconds: int) -> None:
        """Lets the kernel give the client up, once TCP has waited for it for so long.

        Nothing happens where the connection can't be broken off either.
        """
        if self._is_shared:
            return
        self._user_timeout = milliseconds
        shown = self.behind()
        if shown is not None:
            _swap_user_timeout(shown.transport, 0, milliseconds)
            return
        loop = asyncio.get_running_loop()
        next_look = (loop.time() + _LOOK_DELAY) // _LOOK_INTERVAL + 1
        self._look = loop.call_at(next_look * _LOOK_INTERVAL, self._set_user_timeout)

    def _set_user_timeout(self) -> None:
        self._look = None
        self._swap_user_timeout(0, self._user_timeout)

    def unset_user_timeout(self, *, is_kept: bool) -> None:
        """The response is over.

        Args:
            is_kept: the connection may carry others, which may wait longer.
        """
        if self._look is not None:
            self._look.cancel()
        elif is_kept and self._user_timeout:
            self._swap_user_timeout(self._user_timeout, 0)

    def _swap_user_timeout(self, was: int, to: int) -> None:
        shown = self.behind() or self._in_loop()
        if shown is not None:
            _swap_user_timeout(shown.transport, was, to)
            return
        with contextlib.suppress(OSError):
            for each in sockets.between(self._scope.get("server"), self._scope.get("client")):
                sockets.swap_user_timeout(each, was, to)

    @property
    def _is_shared(self) -> bool:
        """Whether it carries other requests as well, as one of HTTP/2 does."""
        return self._version not in ("1.0", "1.1")

    def closing_fields(self) -> list[tuple[str, str]]:
        """What lets the server close it behind a response; nothing where it carries others, too."""
        return [] if self._is_shared else [("connection", "close")]

    def _cut(self, *, abruptly: bool) -> bool:
        shown = self.behind() or self._in_loop()
        if shown is None:
            return self._cut_socket(abruptly=abruptly)
        if abruptly:
            _reset(shown.transport)
            shown.transport.abort()
        else:
            shown.transport.close()
        return True

    def _cut_socket(self, *, abruptly: bool) -> bool:
        if self._is_shared:
            return False
        server, client = self._scope.get("server"), self._scope.get("client")
        return sockets.cut(server, client, abruptly=abruptly)

    def _in_loop(self) -> Shown | None:
        """For middlewares that receive in a task of their own."""
        glance = uvicorn.glance(self._made_at)
        fields = self._scope.get("headers", ())
        found = next(filter(None, (glance.by_field.get(id(field)) for field in fields)), None)
        # Without a header to know it by, by its client.
        others = (each for each in glance.requests if not (fields and each.headers))
        return found or next(filter(self._is_mine, others), None)

    def _is_mine(self, shown: Shown | None) -> bool:
        if shown is None:
            return False
        # Middlewares copy scopes and lists, but not what is in them.
        mine = {id(field) for field in self._scope.get("headers", ())}
        if mine and shown.headers:
            return any(id(field) in mine for field in shown.headers)
        peer = shown.transport.get_extra_info("peername")
        return sockets.same_address(peer, self._scope.get("client"))


def _reset(transport: Transport) -> None:
    connection = transport.get_extra_info("socket")
    # Closed, its descriptor may be another's.
    if connection is not None and not transport.is_closing():
        with contextlib.suppress(OSError), sockets.duplicate(connection.fileno()) as duplicate:
            sockets.shut_down(duplicate, abruptly=True)


def _shown_by(each: object) -> Shown | None:
    return uvicorn.shown_by(each) or gunicorn.shown_by(each) or hypercorn.shown_by(each)


def _swap_user_timeout(transport: Transport, was: int, to: int) -> None:
    # Closed, its descriptor may be another's.
    if not transport.is_closing():
        # uvloop shows none that can be set.
        with (
            contextlib.suppress(OSError),
            sockets.duplicate(transport.get_extra_info("socket").fileno()) as connection,
        ):
            sockets.swap_user_timeout(connection, was, to)
