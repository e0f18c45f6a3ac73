"""What interrupts a drain reaches whom it was aimed at, after all others are written to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import gevent
import pytest
import redis
import redis.asyncio

import streamy_redis.asyncio.listener
import streamy_redis.sync.listener
from streamy_redis import StreamConfig
from streamy_redis.core.subscriber import CloseReason, Subscriber
from streamy_redis.core.witness import Witnesses
from streamy_redis.tally import Tally
from tests.core.test_hub import Process
from tests.core.test_outbox import client, resting

NOTHING_KNOWN = Witnesses(1)


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def subscribers(process: Process) -> list[Subscriber]:
    return resting(process, 5)


def interrupt(subscribers: list[Subscriber], error: Callable[[], BaseException]) -> None:
    client(subscribers[1]).error = error


def assert_others_are_written_to(subscribers: list[Subscriber]) -> None:
    assert [len(client(s).written) for s in subscribers] == [1, 0, 1, 1, 1]
    assert subscribers[1].closed is CloseReason.FAILED


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, gevent.GreenletExit, gevent.Timeout]
)
def test_an_interrupted_thread_is_interrupted(
    process: Process, subscribers: list[Subscriber], error: type[BaseException]
):
    listener = streamy_redis.sync.listener.Listener(
        redis.ConnectionPool(), StreamConfig(), Tally(), NOTHING_KNOWN
    )
    listener._hub = process.hub
    interrupt(subscribers, error)
    process.send()

    with pytest.raises(error):
        listener.drain()

    assert_others_are_written_to(subscribers)
    assert not process.hub.has_writes


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_loop_is_interrupted_and_no_task_of_ours(
    process: Process, subscribers: list[Subscriber], error: type[BaseException]
):
    loop = asyncio.new_event_loop()
    listener = streamy_redis.asyncio.listener.Listener(
        redis.asyncio.ConnectionPool(), StreamConfig(), Tally(), NOTHING_KNOWN
    )
    listener._hub = process.hub
    interrupt(subscribers, error)
    process.send()

    async def drain() -> None:
        listener.drain()

    task = loop.create_task(drain())
    with pytest.raises(error):
        loop.run_until_complete(asyncio.gather(task, asyncio.sleep(1)))

    assert_others_are_written_to(subscribers)
    assert task.done()
    assert task.exception() is None
    loop.close()
