"""The watch: whether the server is stopping, which none tells an endless response.

Each waits for it instead. Three ways, none of which changes the server. The handler of SIGTERM is
chained where that is allowed (in the main thread, over a handler of the server's). The server is
looked at: the one behind that handler, or behind a request; that also shows a worker that is
recycled, and a server that its program stops. And where neither shows a server, the socket by which
it listens tells: what listens no more is stopping.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from . import descriptors, gunicorn, hypercorn, uvicorn
from .connection import Connection
from .sockets import ListeningPort

__all__ = ["ServerWatch", "make_room"]

# Servers and ports of one process that are told apart; more come only from forged headers.
_MOST = 16
# Seconds until a port is looked for again at which nothing was seen: a process without a free
# descriptor sees nothing, and a look reads them all.
_LOOK_INTERVAL = 10.0

# The process that has its descriptors, and a server that keeps to them; a fork is another.
_has_room = 0
# How often SIGTERM came since our handler was put in front of another.
_received = 0


class _Chain:
    """Our handler of SIGTERM, in front of the one that was there before."""

    def __init__(self, previous: Callable[[int, FrameType | None], Any]) -> None:
        self.previous = previous

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        global _received
        _received += 1
        self.previous(signum, frame)


def _chain() -> None:
    """Puts our handler in front of the server's. Without one, the signal ends the process.

    Not so for SIGINT: asyncio.run() gives it a handler that it has to find again.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGTERM)
    if callable(handler) and not isinstance(handler, _Chain):
        signal.signal(signal.SIGTERM, _Chain(handler))


def _signalled() -> object:
    """The server or worker whose method handles SIGTERM, if it is one."""
    handler = signal.getsignal(signal.SIGTERM)
    owner = getattr(handler.previous if isinstance(handler, _Chain) else handler, "__self__", None)
    return owner if gunicorn.is_worker(owner) or uvicorn.is_server(owner) else None


def _has_stopped(server: object) -> bool:
    if isinstance(server, ListeningPort):
        return server.has_closed()
    if gunicorn.is_worker(server):
        return gunicorn.has_stopped(server)
    if hypercorn.is_worker(server):
        return hypercorn.has_stopped(server)
    return uvicorn.has_stopped(server)


def _server_of(shown: object) -> object:
    """The server that a request's shows."""
    if gunicorn.is_worker(shown) or hypercorn.is_worker(shown):
        return shown
    return uvicorn.server_with(shown)


def make_room() -> None:
    """Gives the process all descriptors that it may have, and a server that keeps to their number.

    Once, and at the very beginning of its first stream: a crowd may be coming.
    """
    global _has_room
    if _has_room == os.getpid():
        return
    _has_room = os.getpid()
    descriptors.raise_limit()
    seen = descriptors.seen()
    worker = _signalled()
    if seen is not None and gunicorn.is_worker(worker):
        # The other half is for what their requests open, for files and for Redis.
        gunicorn.limit_connections(worker, seen.headroom // 2)


class ServerWatch:
    """One listener's view of its servers. Cheap to ask.

    A process may have several, which stop one by one, and others after them.
    """

    def __init__(self) -> None:
        _chain()
        self._received = _received
        # Who serves requests, by how that was seen.
        self._servers: dict[object, object] = {}
        # Where nothing was seen, and when.
        self._unseen: dict[object, float] = {}
        # Ports that listen no more: what still comes by them is served by what stops.
        self._lost: dict[object, ListeningPort] = {}

    def server_of(self, connection: Connection) -> object:
        """Who serves an ASGI request; None where that can't be seen. In its event loop."""
        shown = connection.behind()
        found = None
        if shown is not None and shown.server is not None:
            found = self._keep(shown.server, lambda: _server_of(shown.server))
        return found or self.server_at(connection.port)

    def server_at(self, port: int | None) -> object:
        """Who serves what comes to this port; None where that can't be seen."""
        if port is None or _signalled() is not None:
            return None
        lost = self._lost.get(port)
        if lost is not None and lost.has_closed():
            return lost
        return self._keep(port, lambda: ListeningPort(port))

    def _keep(self, key: object, look: Callable[[], object]) -> object:
        if key not in self._servers and self._may_look(key):
            found = look()
            if found:
                self._servers[key] = found
            else:
                self._unseen[key] = time.monotonic()
        return self._servers.get(key)

    def _may_look(self, key: object) -> bool:
        recent = time.monotonic() - _LOOK_INTERVAL
        self._unseen = {each: at for each, at in self._unseen.items() if at > recent}
        return key not in self._unseen and len(self._servers) + len(self._unseen) < _MOST

    def stopped(self) -> list[object]:
        """Those that have begun to stop since this was asked last.

        None is among them if no other is known: whoever is served by what can't be seen.
        """
        servers = list(self._servers.items())
        stopped = {key: server for key, server in servers if _has_stopped(server)}
        for key, server in stopped.items():
            del self._servers[key]
            if isinstance(server, ListeningPort):
                self._lost = dict([*self._lost.items(), (key, server)][-_MOST:])
        is_last = bool(stopped) and not self._servers
        return [*stopped.values(), *([None] if is_last else [])]

    def has_stopped(self, server: object) -> bool:
        """Whether one that serves a request has, which may come on an older connection."""
        return server is not None and _has_stopped(server)

    def is_stopping(self) -> bool:
        """Whether the process is, with all that it serves.

        A program that stops one server goes on, as tests do, and may start another.
        """
        if _received != self._received:
            return True
        signalled = _signalled()
        return not self._servers and signalled is not None and _has_stopped(signalled)

    def response_limit(self) -> int | None:
        """How many responses gunicorn's worker serves at a time, where each takes a thread."""
        worker = _signalled()
        return gunicorn.response_limit(worker) if gunicorn.is_worker(worker) else None
