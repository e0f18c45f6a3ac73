"""A send whose reply is lost after Redis has carried it out, and sends that are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamConfig
from tests.managers import AsyncioManager, LoopThread, ThreadsManager

from .naive import NaiveSender, stored
from .proxy import Fate, Proxy
from .stage import Stage

SEND_TIMEOUT = 2.0


@pytest.fixture
def proxy(stage: Stage) -> Iterator[Proxy]:
    with Proxy(stage.redis.port) as proxy:
        yield proxy


@pytest.fixture
def config(prefix: str) -> StreamConfig:
    return StreamConfig(prefix=prefix, send_timeout=SEND_TIMEOUT)


@pytest.fixture(params=["threads", "asyncio"])
def streams(request: pytest.FixtureRequest, proxy: Proxy, config: StreamConfig) -> Iterator[Any]:
    if request.param == "threads":
        with contextlib.closing(ThreadsManager(proxy.url, config=config)) as manager:
            yield manager
        return
    with contextlib.closing(LoopThread()) as loop:
        manager = AsyncioManager(proxy.url, config=config, loop=loop)
        yield manager
        manager.close()
        assert not loop.tasks()


def in_the_log(stage: Stage, prefix: str, stream_id: str) -> list[str]:
    with contextlib.closing(stage.admin()) as store:
        return [event.data for event in stored(store, f"{prefix}:{{{stream_id}}}:log")]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.name.lower())
def test_stored_once_with_the_id_that_is_returned(
    stage: Stage, proxy: Proxy, streams: Any, prefix: str, fate: Fate, times: int
):
    first = streams.send_event("room", "before")
    proxy.mark(b"EVALSHA", fate, times)

    ids = streams.send_events("room", ["a", "b"])

    assert not proxy.marked
    again = streams.send_event("room", "after")
    assert in_the_log(stage, prefix, "room") == ["before", "a", "b", "after"]
    with streams.subscribe("room", replay="all") as events:
        seen = [event.id for _, event in zip(range(4), events, strict=False)]
    assert seen == [first, *ids, again]


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.name.lower())
def test_more_replies_lost_than_there_are_tries_is_an_error_that_can_be_repeated(
    stage: Stage, proxy: Proxy, streams: Any, prefix: str, fate: Fate
):
    streams.send_event("room", "before")
    proxy.mark(b"EVALSHA", fate, 4)

    with pytest.raises(RedisUnavailable) as caught:
        streams.send_event("room", "a")
    event_id = streams.send_event("room", "a", idempotency_key=caught.value.idempotency_key)

    assert in_the_log(stage, prefix, "room") == ["before", "a"]
    assert streams.info("room").last_event_id == event_id
    assert f"{prefix}:{{room}}:log" in str(caught.value)


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.name.lower())
def test_an_end_whose_reply_is_lost_is_still_this_call_s(proxy: Proxy, streams: Any, fate: Fate):
    streams.send_event("room", "before")
    proxy.mark(b"EVALSHA", fate, 2)

    assert streams.end_stream("room", "bye") is True
    assert streams.end_stream("room", "bye") is False
    assert streams.info("room").length == 2


def test_a_naive_sender_is_caught(stage: Stage, proxy: Proxy, prefix: str):
    with contextlib.closing(NaiveSender(proxy.url, prefix, "room")) as naive:
        proxy.mark(b"EVAL", Fate.LOST)
        naive.send("once")
        naive.assert_caught()


def test_cancelled_sends_are_stored_at_most_once_and_mix_nobody_s_replies_up(
    stage: Stage, config: StreamConfig, prefix: str, rng: random.Random
):
    """At random moments, some of them while a reply is on its way.

    redis-py itself gives up a connection whose command was cancelled: nothing naive to catch.
    """
    returned: dict[str, str] = {}
    cancelled: list[str] = []
    with Proxy(stage.redis.port) as proxy:
        asyncio.run(send_and_cancel(proxy, config, rng, returned, cancelled))

    log = Counter(in_the_log(stage, prefix, "room"))
    assert max(log.values()) == 1
    assert len(cancelled) >= 40
    assert set(returned.values()) <= set(log)
    assert set(log) <= set(returned.values()) | set(cancelled)
    with contextlib.closing(stage.admin()) as store:
        by_id = {e.last_event_id: e.data for e in stored(store, f"{prefix}:{{room}}:log")}
    assert returned.items() <= by_id.items(), "each caller was given its own reply"


async def send_and_cancel(
    proxy: Proxy,
    config: StreamConfig,
    rng: random.Random,
    returned: dict[str, str],
    cancelled: list[str],
) -> None:
    async def send(data: str) -> None:
        try:
            returned[await streams.send_event("room", data)] = data
        except asyncio.CancelledError:
            cancelled.append(data)
            raise

    async def cancel_later(task: asyncio.Task[None]) -> None:
        await asyncio.sleep(rng.uniform(0, 0.004))
        task.cancel()

    async with AsyncStreamManager(proxy.url, config=config) as streams:
        await streams.send_event("elsewhere", "x")
        start = asyncio.all_tasks()
        for n in range(400):
            if len(cancelled) >= 40:
                break
            batch = [asyncio.create_task(send(f"{n} {i}")) for i in range(8)]
            cancels = [asyncio.create_task(cancel_later(task)) for task in batch[::2]]
            results = await asyncio.gather(*batch, *cancels, return_exceptions=True)
            unexpected = [
                r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)
            ]
            assert not unexpected, unexpected[:3]
        assert asyncio.all_tasks() == start, "nothing is left of them"
        assert len(proxy.links) <= 4
        await streams.send_event("room", last := "the last")
        returned[(await streams.info("room")).last_event_id or ""] = last
