"""memory://: one embedded store for all managers and loops of this process."""

from __future__ import annotations

import asyncio

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager


def test_managers_of_both_kinds_and_several_loops_share_it(prefix: str):
    config = StreamConfig(prefix=prefix)
    threads = StreamManager("memory://", config=config)
    tasks = AsyncStreamManager("memory://", config=config)

    async def hear_and_answer() -> tuple[str, str]:
        async with asyncio.timeout(10), tasks.subscribe("room") as events:
            await asyncio.to_thread(threads.send_event, "room", "from a thread")
            heard = await anext(events)
            answer = await tasks.send_event("room", "from a task")
            await tasks.aclose()
            return heard.data, answer

    with threads.subscribe("room") as events:
        for _ in range(2):
            heard, answer = asyncio.run(hear_and_answer())
            assert heard == "from a thread"
            assert [next(events).data, next(events).id] == ["from a thread", answer]
    threads.close()


def test_it_is_empty_for_another_prefix_and_forgets_nothing_between_managers(prefix: str):
    with StreamManager("memory://", config=StreamConfig(prefix=prefix)) as streams:
        event_id = streams.send_event("room", "kept")

    with StreamManager("memory://", config=StreamConfig(prefix=prefix)) as streams:
        assert streams.info("room").last_event_id == event_id
    with StreamManager("memory://", config=StreamConfig(prefix=prefix + "x")) as streams:
        assert not streams.info("room").exists
