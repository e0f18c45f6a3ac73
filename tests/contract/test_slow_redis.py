"""A Redis that can't keep up: each send is stored once or refused, and nobody waits for others."""

from __future__ import annotations

import collections
import math
import time
from typing import Any

import pytest
import redis

from tests.proxy import FarProxy, SlowProxy

from .conftest import Shell
from .test_far_redis import at_once

pytestmark = pytest.mark.one_server


@pytest.fixture
def port(redis_url: str) -> int:
    return redis.connection.parse_url(redis_url)["port"]  # type: ignore[no-any-return]


def test_what_many_send_over_a_slow_line_is_stored_once(shell: Shell, redis_url: str, port: int):
    """All of it together takes longer than one try may."""
    near = shell.manager(redis_url)
    near.send_event("warm up", "x")
    with SlowProxy(port, up=60_000, down=math.inf) as slow:
        streams = shell.manager(slow.url, send_timeout=4)

        ids, _ = at_once(120, lambda n: streams.send_event("room", f"{n:05}" + "x" * 2000))

        streams.close()
    assert [each for each in ids if not isinstance(each, str)] == []
    stored = shell.reader(near, "room", replay="all").wait_for(near.info("room").length)
    assert collections.Counter(event.id for event in stored) == collections.Counter(ids)


def test_replies_that_dribble_bind_nobody_longer_than_send_timeout(
    shell: Shell, redis_url: str, port: int
):
    shell.manager(redis_url).send_event("warm up", "x")
    with SlowProxy(port, up=math.inf, down=400) as slow:
        streams = shell.manager(slow.url, send_timeout=1.6)

        def seconds(number: int) -> float:
            start = time.monotonic()
            try:
                streams.send_event("room", str(number))
            finally:
                took.append(time.monotonic() - start)
            return took[-1]

        took: list[float] = []
        at_once(60, seconds)

        streams.close()
    assert len(took) == 60
    assert max(took) < 1.6 + 1


def test_closing_lets_those_who_send_finish(shell: Shell, port: int):
    with FarProxy(port, 0.05) as far:
        streams = shell.manager(far.url)
        streams.send_event("room", "before")

        def act(number: int) -> Any:
            return streams.close() if number == 150 else streams.send_event("room", str(number))

        results, _ = at_once(300, act)

        results.remove(None)
        assert [each for each in results if not isinstance(each, str)] == []
        streams.close()
