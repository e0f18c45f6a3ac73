"""Server-sent events for Flask, Starlette and FastAPI, carried by Redis.

Any process sends to a stream or ends it; every browser that is connected to any worker receives
it: each event once and in order, or an explicit reset.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from .config import StreamConfig
from .core.event import Event, ReceivedEvent
from .core.history import StreamInfo
from .core.stats import StreamStats
from .exceptions import InvalidEvent, RedisUnavailable, StreamEnded, StreamyError
from .sync.manager import StreamManager
from .sync.subscription import Subscription

if TYPE_CHECKING:
    from .asyncio.manager import AsyncStreamManager
    from .asyncio.subscription import AsyncSubscription

__all__ = [
    "AsyncStreamManager",
    "AsyncSubscription",
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
    "Subscription",
]
# The asyncio shell needs anyio, which the core installs without.
_OF_ASYNCIO = {
    "AsyncStreamManager": "streamy_redis.asyncio.manager",
    "AsyncSubscription": "streamy_redis.asyncio.subscription",
}


def __getattr__(name: str) -> object:
    if name not in _OF_ASYNCIO:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_OF_ASYNCIO[name])
    except ModuleNotFoundError as exc:
        if exc.name != "anyio":
            raise
        raise ImportError(f"{name} needs an extra: pip install 'streamy-redis[starlette]'") from exc
    found: object = getattr(module, name)
    return found


def __dir__() -> list[str]:
    return __all__
