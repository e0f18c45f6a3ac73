"""The watch: whether the server is stopping, which none tells an endless response.

Each waits for it instead. Three ways, none of which changes the server. The handler of SIGTERM is
chained where that is allowed (in the main thread, over a handler of the server's). The server is
looked at: the one behind that handler, or behind a request; that also shows a worker that is
recycled, and a server that its program stops. And where neither shows a server, the socket by which
it listens tells: what listens no more is stopping.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from . import gunicorn, uvicorn
from .connection import Connection
from .sockets import ListeningPort

__all__ = ["ServerWatch"]

# Servers and ports of one process that are told apart; more come only from forged headers.
_MOST = 16

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
    return uvicorn.has_stopped(server)


class ServerWatch:
    """One listener's view of its servers. Cheap to ask.

    A process may have several, which stop one by one, and others after them.
    """

    def __init__(self) -> None:
        _chain()
        self._received = _received
        # Who serves requests, by how that was seen; None or nothing where it can't be.
        self._servers: dict[object, object] = {}
        # One that was seen has stopped.
        self._has_lost_one = False

    def server_of(self, connection: Connection) -> object:
        """Who serves an ASGI request; None where that can't be seen. In its event loop."""
        shown = connection.behind_receive()
        server = shown.server if shown is not None else None
        if server is not None and not gunicorn.is_worker(server):
            server = self._keep(server, lambda: uvicorn.server_with(server))
        elif server is not None:
            server = self._keep(server, lambda: server)
        return server or self.server_at(connection.port)

    def server_at(self, port: int | None) -> object:
        """Who serves what comes to this port; None where that can't be seen."""
        if port is None or _signalled() is not None:
            return None
        return self._keep(port, lambda: ListeningPort(port)) or None

    def _keep(self, key: object, look: Callable[[], object]) -> object:
        if key not in self._servers and len(self._servers) < _MOST:
            self._servers[key] = look()
        return self._servers.get(key)

    def stopped(self) -> list[object]:
        """Those that have begun to stop since this was asked last."""
        servers = list(self._servers.items())
        stopped = {key: server for key, server in servers if server and _has_stopped(server)}
        for key in stopped:
            del self._servers[key]
        self._has_lost_one = self._has_lost_one or bool(stopped)
        return list(stopped.values())

    def is_stopping(self) -> bool:
        """Whether all of them have, or the process was told to."""
        if _received != self._received:
            return True
        if any(self._servers.values()):
            return False
        signalled = _signalled()
        return self._has_lost_one or (signalled is not None and _has_stopped(signalled))

    def response_limit(self) -> int | None:
        """How many responses gunicorn's worker serves at a time, where each takes a thread."""
        worker = _signalled()
        return gunicorn.response_limit(worker) if gunicorn.is_worker(worker) else None
