"""Who waits for a connection is told when there is one, also by those who give up."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import streamy_redis.asyncio.pipelines
import streamy_redis.sync.pipelines
from streamy_redis import StreamConfig
from streamy_redis.connections import Busy
from streamy_redis.core.attempts import Attempts
from tests.deadline import Deadline

# Longer than the test: nobody looks by themselves.
NEVER = 60.0


def attempts(latest: float) -> Attempts:
    now = time.monotonic()
    return Attempts(now + latest + 5, latest=now + latest, max_retries=0, backoff=(0.1, 0.1))


def test_a_thread_that_is_woken_too_late_wakes_the_next(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streamy_redis.sync.pipelines, "LOOK_INTERVAL", NEVER)
    senders = streamy_redis.sync.pipelines.Pipelines(redis_url, StreamConfig())
    lines = [senders._free.pop() for _ in range(len(senders._free))]
    with ThreadPoolExecutor() as threads:
        late = threads.submit(senders.ask, ("PING",), attempts(-1.0))
        Deadline(5).until(lambda: len(senders._waiting) == 1)
        patient = threads.submit(senders.ask, ("PING",), attempts(5.0))
        Deadline(5).until(lambda: len(senders._waiting) == 2)

        # As the end of an exchange that a signal's handler holds up between the two.
        senders._free.extend(lines)
        senders._waiting[0].wake()

        assert isinstance(late.exception(5), Busy)
        assert patient.result(5) in (b"PONG", True)
    senders.close()


def test_a_task_that_is_woken_too_late_wakes_the_next(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(streamy_redis.asyncio.pipelines, "LOOK_INTERVAL", NEVER)

    async def run() -> None:
        senders = streamy_redis.asyncio.pipelines.Pipelines(redis_url, StreamConfig())
        lines = [senders._free.pop() for _ in range(len(senders._free))]
        late = asyncio.create_task(senders.ask(("PING",), attempts(-1.0)))
        patient = asyncio.create_task(senders.ask(("PING",), attempts(5.0)))
        while len(senders._waiting) < 2:
            await asyncio.sleep(0)
        senders._free.extend(lines)
        senders._waiting[0].wake()

        with pytest.raises(Busy):
            await asyncio.wait_for(late, 5)
        assert await asyncio.wait_for(patient, 5) in (b"PONG", True)
        await senders.close()

    asyncio.run(run())
