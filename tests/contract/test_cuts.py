"""Exceptions thrown into senders at random moments: they lose no connection, slot or reply."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from streamy_redis import StreamConfig, StreamManager

from .conftest import GEVENT
from .test_forks import outcome

pytestmark = pytest.mark.skipif(GEVENT, reason="cuts in processes of its own")


@pytest.fixture(params=["threads", "signals", "handlers", "asyncio", "gevent"])
def told(request: pytest.FixtureRequest, redis_url: str, prefix: str) -> dict[str, Any]:
    return outcome("cut_senders", redis_url, prefix, kind=request.param)


def test_what_was_cut_takes_nothing_from_the_others(
    told: dict[str, Any], redis_url: str, prefix: str
):
    assert told["cuts"] >= 1500
    assert told["errors"] == []
    assert told["free"] == 3

    with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
        count = streams.info("room").length
        with streams.subscribe("room", replay="all") as events:
            stored = {event.id: event.data for event in itertools.islice(events, count)}
    assert told["returned"].items() <= stored.items(), "a reply was another command's"
    assert len(set(stored.values())) == len(stored) == count, "repeated"


@pytest.mark.parametrize("kind", ["subscribe", "live", "writer", "info", "close", "first"])
def test_wherever_a_handler_raises_nothing_hangs_and_nobody_is_left(
    kind: str, redis_url: str, prefix: str
):
    told = outcome("cut_everywhere", redis_url, prefix, kind=kind)

    # Older packages have fewer points to be cut at.
    assert told["cuts"] >= 5
