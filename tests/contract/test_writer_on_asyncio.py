"""What only a writer in an event loop has to stand: cancellation, and other loops."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from streamy_redis import AsyncStreamManager, StreamConfig
from tests.servers import RedisServer

from .conftest import GEVENT

pytestmark = pytest.mark.skipif(GEVENT, reason="asyncio under gevent is nobody's case")

# Longer than any test takes: what is sent was not sent because it was due.
LONG = 60.0


class Room:
    """One stream, and a task that writes half of its text and then waits for ever."""

    def __init__(self, streams: AsyncStreamManager) -> None:
        self.streams = streams
        self.has_written = asyncio.Event()

    async def write(self) -> None:
        async with self.streams.writer("room", LONG) as writer:
            await writer.write("half")
            self.has_written.set()
            await anyio.sleep_forever()

    async def received(self) -> tuple[list[str], Any]:
        """The texts, and the data of the end."""
        async with self.streams.subscribe("room", replay="all") as reader:
            events = [event async for event in reader]
        assert events[-1].kind == "end"
        return [event.data for event in events[:-1]], json.loads(events[-1].data)


async def cancel_the_task(room: Room) -> None:
    task = asyncio.create_task(room.write())
    await room.has_written.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def cancel_its_scope(room: Room) -> None:
    # Delivers the cancellation again at each await: what isn't shielded never ends.
    async with anyio.create_task_group() as group:
        group.start_soon(room.write)
        await room.has_written.wait()
        group.cancel_scope.cancel()


async def let_time_run_out(room: Room) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(room.write(), 0.2)


async def close_its_generator(room: Room) -> None:
    async def tokens() -> AsyncIterator[None]:
        async with room.streams.writer("room", LONG) as writer:
            await writer.write("half")
            yield

    generator = tokens()
    async for _ in generator:
        break
    await generator.aclose()


@pytest.mark.parametrize(
    "cancel", [cancel_the_task, cancel_its_scope, let_time_run_out, close_its_generator]
)
def test_what_is_cancelled_ends_its_stream_as_cancelled(
    any_redis_url: str, prefix: str, cancel: Callable[[Room], Any]
):
    async def job() -> None:
        async with AsyncStreamManager(any_redis_url, config=StreamConfig(prefix=prefix)) as streams:
            before = asyncio.all_tasks()
            room = Room(streams)
            await cancel(room)
            assert asyncio.all_tasks() <= before
            assert await room.received() == (["half"], {"reason": "cancelled"})

    asyncio.run(asyncio.wait_for(job(), 20))


def test_a_send_that_a_cancellation_cut_off_is_stored_once(redis_server: RedisServer):
    async def job() -> None:
        async with AsyncStreamManager(redis_server.url) as streams:
            room = Room(streams)
            await streams.send_event("warm up", "x")

            async def write() -> None:
                async with streams.writer("room", LONG) as writer:
                    await writer.write("a")
                    redis_server.hang()
                    await writer.flush()

            task = asyncio.create_task(write())
            # The command lies in the server's socket and will be carried out.
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(task), 0.3)
            task.cancel()
            asyncio.get_running_loop().call_later(0.2, redis_server.go_on)
            await asyncio.wait([task])
            assert task.cancelled()
            assert await room.received() == (["a"], {"reason": "cancelled"})

    asyncio.run(asyncio.wait_for(job(), 20))


@pytest.mark.parametrize("closing", [True, False], ids=["aclose", "abandoned"])
def test_a_writer_that_the_end_of_the_loop_cuts_off_ends_its_stream(
    redis_url: str, prefix: str, caplog: pytest.LogCaptureFixture, closing: bool
):
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))
    tasks = []

    async def job() -> None:
        room = Room(streams)
        tasks.append(asyncio.create_task(room.write()))
        await room.has_written.wait()
        if closing:
            await streams.aclose()

    async def received() -> tuple[list[str], Any]:
        async with streams:
            return await Room(streams).received()

    asyncio.run(job())

    gc.collect()  # what was left open would warn here
    assert asyncio.run(received()) == (["half"], {"reason": "cancelled"})
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_block_that_the_end_of_the_loop_cuts_off_before_it_wrote_ends_its_stream(
    redis_url: str, prefix: str, caplog: pytest.LogCaptureFixture
):
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))
    tasks = []

    async def wait(has_begun: asyncio.Event) -> None:
        async with streams.writer("room"):
            has_begun.set()
            await anyio.sleep_forever()

    async def job() -> None:
        has_begun = asyncio.Event()
        tasks.append(asyncio.create_task(wait(has_begun)))
        await has_begun.wait()

    async def received() -> tuple[list[str], Any]:
        async with streams:
            return await Room(streams).received()

    asyncio.run(job())

    gc.collect()  # what was left open would warn here
    assert asyncio.run(received()) == ([], {"reason": "cancelled"})
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_a_send_that_outlives_its_manager_leaves_no_connection(redis_server: RedisServer):
    streams = AsyncStreamManager(redis_server.url)

    async def job() -> int:
        await streams.send_event("warm up", "x")
        redis_server.hang()
        task = asyncio.create_task(streams.send_event("room", "x"))
        await asyncio.wait([task], timeout=0.2)
        await streams.aclose()
        redis_server.go_on()
        await task
        with redis_server.connect() as store:
            return len(store.client_list()) - 1

    assert asyncio.run(asyncio.wait_for(job(), 20)) == 0


def test_a_writer_belongs_to_one_event_loop(redis_url: str, prefix: str):
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))
    writer = streams.writer("room", LONG)
    asyncio.run(writer.write("a"))

    for use in (lambda: writer.write("b"), writer.flush, writer.aclose):
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(use())
