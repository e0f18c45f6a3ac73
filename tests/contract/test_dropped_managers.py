"""Managers that nobody closes: what they have open goes with the last that refers to them."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable

import pytest

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from tests.deadline import Deadline

from .conftest import GEVENT

pytestmark = [
    pytest.mark.one_server,
    pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts descriptors in /proc"),
]
COUNT = 50


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def use(url: str, config: StreamConfig) -> None:
    streams = StreamManager(url, config=config)
    with streams.subscribe("room") as events:
        sent = streams.send_event("room", "x")
        assert next(events).id == sent


async def use_async(url: str, config: StreamConfig) -> None:
    streams = AsyncStreamManager(url, config=config)
    async with streams.subscribe("room") as events:
        sent = await streams.send_event("room", "x")
        assert (await anext(events)).id == sent


def grown(before: tuple[int, int]) -> tuple[int, int]:
    """Threads and descriptors that there are more."""
    gc.collect()
    return threading.active_count() - before[0], descriptors() - before[1]


@pytest.mark.skipif(GEVENT, reason="threads are counted")
def test_managers_that_are_dropped_leave_nothing(redis_url: str, prefix: str):
    config = StreamConfig(prefix=prefix)
    use(redis_url, config)
    before = 0, 0
    Deadline(10).until(lambda: grown(before) and "streamy" not in str(threading.enumerate()))
    before = grown(before)

    for _ in range(COUNT):
        use(redis_url, config)

    Deadline(20).until(lambda: max(grown(before)) <= 0, lambda: f"{grown(before)} are left")


@pytest.mark.skipif(GEVENT, reason="asyncio")
def test_managers_that_a_loop_drops_leave_nothing(
    redis_url: str, prefix: str, caplog: pytest.LogCaptureFixture
):
    config = StreamConfig(prefix=prefix)

    async def settle(is_settled: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_settled():
                gc.collect()
                await asyncio.sleep(0.01)

    async def run() -> None:
        await use_async(redis_url, config)
        await settle(lambda: len(asyncio.all_tasks()) == 1)
        before = descriptors()
        for _ in range(COUNT):
            await use_async(redis_url, config)
        await settle(lambda: len(asyncio.all_tasks()) == 1 and descriptors() <= before)

    asyncio.run(run())

    # Such as asyncio's of tasks that were pending.
    assert caplog.text == ""


def test_an_open_response_keeps_what_feeds_it(redis_url: str, prefix: str):
    config = StreamConfig(prefix=prefix)
    dropped = StreamManager(redis_url, config=config)
    process = dropped._process
    stream = process.new_stream(
        "room", cursor=None, replay=0, event_name="message", keep_alive_interval=None
    )
    assert stream.add()
    assert stream.is_open_within(5)
    stream.take()
    del dropped
    gc.collect()

    with StreamManager(redis_url, config=config) as others:
        others.send_event("room", "x")
    frames, closed = stream.take()

    assert b"data: x" in b"".join(frames)
    assert closed is None
    threads = list(process.listener._threads)
    assert threads
    stream.close()
    Deadline(5).until(lambda: not any(thread.is_alive() for thread in threads))


@pytest.mark.skipif(GEVENT, reason="asyncio")
def test_a_subscription_that_is_dropped_ends(redis_url: str, prefix: str):
    config = StreamConfig(prefix=prefix)
    with StreamManager(redis_url, config=config) as streams:
        streams.send_event("room", "x")
        for _ in streams.subscribe("room", replay="all"):
            break
        Deadline(5).until(lambda: not streams._process.listener.has_subscribers)

    async def run() -> None:
        async with AsyncStreamManager(redis_url, config=config) as streams:
            await streams.send_event("room", "x")
            async for _ in streams.subscribe("room", replay="all"):
                break
            async with asyncio.timeout(5):
                while streams._loop.listener._hub.has_subscribers:
                    await asyncio.sleep(0.01)

    asyncio.run(run())
