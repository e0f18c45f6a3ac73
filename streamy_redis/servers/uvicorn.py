"""uvicorn: its requests, and the server behind them."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from .reach import is_made_by
from .shown import Shown

__all__ = ["Glance", "Server", "glance", "has_stopped", "is_server", "server_with", "shown_by"]

# uvicorn.Server.
Server = Any

# Seconds for which one look at all requests is good enough: a stopping server cuts all of them, and
# each look costs as much as there are.
_GLANCE = 0.1


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


class Glance:
    """What the servers of the running loop are answering, of HTTP/1, as of one moment.

    Attributes:
        made_at: the moment; requests that came before it are here if they are anywhere.
        requests: all of them.
        by_field: the same by the identity of each of their headers, which they keep alive.
    """

    def __init__(self) -> None:
        self.made_at = time.monotonic()
        self.requests = list(_requests())
        self.by_field = {id(field): each for each in self.requests for field in each.headers}


class _Latest(threading.local):
    """A thread runs one loop."""

    glance: Glance | None = None

    def drop(self) -> None:
        self.glance = None


_latest = _Latest()


def glance(since: float) -> Glance:
    """One that is new enough for a request that came at that time.

    It is dropped by the loop, for what it keeps alive.
    """
    found = _latest.glance
    if found is None or not since <= found.made_at > time.monotonic() - _GLANCE:
        found = _latest.glance = Glance()
        asyncio.get_running_loop().call_later(_GLANCE, _latest.drop)
    return found


def _requests() -> Iterator[Shown]:
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
