"""One AsyncStreamManager, several event loops, one after another."""

from __future__ import annotations

import asyncio
import gc

import pytest

from streamy_redis import AsyncStreamManager, StreamConfig

from .conftest import GEVENT

pytestmark = pytest.mark.skipif(GEVENT, reason="asyncio under gevent is nobody's case")


async def one_round(streams: AsyncStreamManager, n: int) -> tuple[str, str]:
    async with streams.subscribe("room") as events:
        sent = await streams.send_event("room", str(n))
        async for event in events:
            return sent, event.id
    raise AssertionError("the iteration ended by itself")


@pytest.mark.parametrize("closing", [True, False], ids=["aclose", "abandoned"])
def test_asyncio_run_twenty_times_with_one_manager(redis_url: str, prefix: str, closing: bool):
    def rounds() -> list[tuple[str, str]]:
        streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))

        async def job(n: int) -> tuple[str, str]:
            result = await asyncio.wait_for(one_round(streams, n), 10)
            if closing:
                await streams.aclose()
            return result

        return [asyncio.run(job(n)) for n in range(20)]

    done = rounds()

    assert all(sent == received for sent, received in done)
    assert len({sent for sent, _ in done}) == 20
    gc.collect()  # a transport that was left open would warn here, and a warning is an error


def test_a_manager_is_an_async_context_and_a_lifespan(redis_url: str, prefix: str):
    async def job() -> str:
        async with AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
            return await streams.send_event("room", "x")

    assert asyncio.run(job())


def test_a_cancelled_subscription_leaves_nothing_behind(redis_url: str, prefix: str):
    async def job() -> set[str]:
        before = asyncio.all_tasks()
        async with AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:

            async def read() -> None:
                async with streams.subscribe("room") as events:
                    async for _ in events:
                        pass

            tasks = [asyncio.create_task(read()) for _ in range(10)]
            await streams.send_event("room", "x")
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(r, asyncio.CancelledError) for r in results)
        return {repr(task) for task in asyncio.all_tasks() - before}

    assert asyncio.run(job()) == set()


def test_cancelled_sends_are_stored_at_most_once_and_mix_up_no_replies(redis_url: str, prefix: str):
    async def job() -> None:
        async with AsyncStreamManager(
            redis_url, config=StreamConfig(prefix=prefix, history_length=5000)
        ) as streams:
            returned: dict[str, str] = {}

            async def send(n: int) -> None:
                returned[str(n)] = await streams.send_event("room", str(n))

            tasks = []
            for n in range(300):
                task = asyncio.create_task(send(n))
                tasks.append(task)
                if n % 3 == 0:
                    asyncio.get_running_loop().call_later(n % 7 / 2000, task.cancel)
                if n % 10 == 0:
                    await asyncio.sleep(0)
            await asyncio.gather(*tasks, return_exceptions=True)
            await streams.end_stream("room")
            stored: dict[str, str] = {}
            async with streams.subscribe("room", replay="all") as events:
                async for event in events:
                    if event.kind == "event":
                        assert event.data not in stored, "stored twice"
                        stored[event.data] = event.id
            assert returned.items() <= stored.items()
            assert len(returned) >= 200

    asyncio.run(asyncio.wait_for(job(), 30))
