"""uvicorn: its requests, and the server behind them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

from .reach import is_made_by
from .shown import Shown

__all__ = ["Server", "has_stopped", "is_server", "requests_in_loop", "server_with", "shown_by"]

# uvicorn.Server.
Server = Any


def shown_by(each: Any) -> Shown | None:
    """The request, if this is what answers one."""
    if not is_made_by("uvicorn", each) or not hasattr(each, "response_started"):
        return None
    # While the request is answered its transport is the connection's.
    protocol = each.transport.get_protocol()
    return Shown(each.scope["headers"], each.transport, getattr(protocol, "server_state", None))


def is_server(candidate: object) -> bool:
    # Its lifespan has the one as well, its protocols the other.
    names = ("should_exit", "server_state")
    return is_made_by("uvicorn", candidate) and all(hasattr(candidate, name) for name in names)


def has_stopped(server: Server) -> bool:
    """Whether it has begun to stop, for whatever reason."""
    if server.should_exit or server.force_exit:
        return True
    # With limit_max_requests only its listening sockets tell.
    return any(not each.is_serving() for each in getattr(server, "servers", ()))


def server_with(state: object) -> Server | None:
    """The server of the running loop that has this state, which its connections share."""
    return next((each for each in _servers() if each.server_state is state), None)


def requests_in_loop() -> Iterator[Shown]:
    """What the servers of the running loop are answering, of HTTP/1."""
    for server in _servers():
        for connection in list(server.server_state.connections):
            shown = shown_by(getattr(connection, "cycle", None))
            if shown is not None:
                yield shown


def _servers() -> Iterator[Server]:
    """No connection knows its server, and one in a thread has no signal; but a task runs it."""
    if "uvicorn" not in sys.modules:
        return
    for task in asyncio.all_tasks():
        yield from filter(is_server, _owners(task.get_coro()))


def _owners(coroutine: Any) -> Iterator[object]:
    """Whose methods a task is in, from the outermost to the one that waits."""
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and "self" in frame.f_code.co_varnames:
            yield frame.f_locals.get("self")
        coroutine = getattr(coroutine, "cr_await", None)
