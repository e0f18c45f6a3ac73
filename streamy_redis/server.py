"""The server: what a process can tell of the one that it runs in.

Above all, whether it is stopping. No server tells an endless response that it has to end; each
waits for it instead. Two ways, neither of which changes the server: the handler of SIGTERM is
chained where that is allowed (in the main thread, over a handler of the server's), and the server
behind that handler is looked at, which also shows a worker that is being recycled.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["ServerWatch"]

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


def _server() -> object:
    """The server or worker whose method handles SIGTERM, if it is one."""
    handler = signal.getsignal(signal.SIGTERM)
    return getattr(handler.previous if isinstance(handler, _Chain) else handler, "__self__", None)


def _has_stopped(server: object) -> bool:
    # gunicorn's worker, asked to end by its master or by max_requests.
    if getattr(server, "alive", True) is False:
        return True
    # uvicorn's server; with limit_max_requests only its listening sockets tell.
    if getattr(server, "should_exit", False) is True:
        return True
    listening = getattr(server, "servers", None)
    if not isinstance(listening, list) or not hasattr(server, "should_exit"):
        return False
    return any(not each.is_serving() for each in listening)


class ServerWatch:
    """One listener's view of its server. Cheap to ask, from any thread."""

    def __init__(self) -> None:
        _chain()
        self._received = _received
        self._worker: object = None

    def look_behind(self, receive: object) -> None:
        """Finds gunicorn's asgi worker, whose signal handlers belong to the event loop."""
        protocol = getattr(getattr(receive, "__self__", None), "protocol", None)
        self._worker = getattr(protocol, "worker", None)

    def is_stopping(self) -> bool:
        """Whether the server has begun to stop since the watch began."""
        if _received != self._received or _has_stopped(_server()):
            return True
        return self._worker is not None and _has_stopped(self._worker)

    def response_limit(self) -> int | None:
        """How many responses gunicorn's worker serves at a time, where each takes a thread."""
        server = _server()
        kind = type(server).__name__
        if kind == "SyncWorker":
            return 1
        if kind == "ThreadWorker":
            return int(server.cfg.threads)  # type: ignore[attr-defined]
        return None
