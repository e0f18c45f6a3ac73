"""Server-sent events for Flask, Starlette and FastAPI, carried by Redis.

Any process sends to a stream or ends it; every browser that is connected to any worker receives
it: each event once and in order, or an explicit reset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import StreamConfig
from .core.event import Event, ReceivedEvent
from .core.history import StreamInfo
from .core.stats import StreamStats
from .exceptions import InvalidEvent, RedisUnavailable, StreamEnded, StreamyError
from .sync.manager import StreamManager

if TYPE_CHECKING:
    from .asyncio.manager import AsyncStreamManager

__all__ = [
    "AsyncStreamManager",
    "Event",
    "InvalidEvent",
    "ReceivedEvent",
    "RedisUnavailable",
    "StreamConfig",
    "StreamEnded",
    "StreamInfo",
    "StreamManager",
    "StreamStats",
    "StreamyError",
]


def __getattr__(name: str) -> Any:
    # The asyncio shell needs anyio, which the core installs without.
    if name != "AsyncStreamManager":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .asyncio.manager import AsyncStreamManager
    except ModuleNotFoundError as exc:
        if exc.name != "anyio":
            raise
        message = "AsyncStreamManager needs an extra: pip install 'streamy-redis[starlette]'"
        raise ImportError(message) from exc
    return AsyncStreamManager
