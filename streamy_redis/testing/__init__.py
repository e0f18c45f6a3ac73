"""For the tests of applications: streams through test clients, an embedded Redis, its faults.

In conftest.py, ``pytest_plugins = ["streamy_redis.testing"]`` gives the fixtures
``streamy_redis_server`` and ``streamy_redis_url``.

PYTEST_DONT_REWRITE: a conftest may import it before pytest does.
"""

from __future__ import annotations

from .fixtures import _streamy_redis_is_empty as _streamy_redis_is_empty
from .fixtures import streamy_redis_server, streamy_redis_url
from .parser import StreamEvent
from .response import MissingEvents
from .server import RedisServer
from .streams import AsyncEventStream, EventStream, open_stream

__all__ = [
    "AsyncEventStream",
    "EventStream",
    "MissingEvents",
    "RedisServer",
    "StreamEvent",
    "open_stream",
    "streamy_redis_server",
    "streamy_redis_url",
]
