"""What a server shows of one request, once it was reached."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Shown", "StreamTransport", "Transport"]

# A loop holds its tasks weakly.
_resetting: set[asyncio.Task[None]] = set()


class Transport(Protocol):
    """What is used of an asyncio.Transport; uvloop's are of no class of asyncio's."""

    def abort(self) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...
    def get_extra_info(self, name: str) -> Any: ...


class StreamTransport:
    """One stream of an HTTP/2 connection, which carries others as well.

    Args:
        reset: tells the client that the stream is broken off; abruptly, when what is unsent is not
            worth waiting for.
    """

    def __init__(self, reset: Callable[[bool], Coroutine[Any, Any, None]]) -> None:
        self._reset = reset
        self._is_closing = False

    def is_closing(self) -> bool:
        return self._is_closing

    def abort(self) -> None:
        self._begin(abruptly=True)

    def close(self) -> None:
        self._begin(abruptly=False)

    def _begin(self, *, abruptly: bool) -> None:
        self._is_closing = True
        task = asyncio.get_running_loop().create_task(self._reset(abruptly))
        _resetting.add(task)
        task.add_done_callback(_resetting.discard)

    def get_extra_info(self, name: str) -> None:
        """It is known by its headers: its client has others like it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A request as its server holds it.

    Attributes:
        headers: the very pairs that the scope began with.
        transport: its connection's, or its own where that carries others as well.
        server: what knows whether the server stops: gunicorn's worker, uvicorn's state,
            hypercorn's worker.
    """

    headers: Sequence[tuple[bytes, bytes]]
    transport: Transport
    server: object
