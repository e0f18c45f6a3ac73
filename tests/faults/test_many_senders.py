"""Many senders at once, in threads, tasks, loops and processes that don't live long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import redis

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamConfig, StreamManager
from tests.browser import ReadyState
from tests.deadline import Deadline
from tests.event_stream import MessageEvent
from tests.exactly_once import Delivery, SentLog, position_of

from .naive import (
    NaiveAsyncSender,
    SharedConnection,
    assert_lost,
    assert_mixed_up,
    stored,
)
from .proxy import Fate
from .stage import Scene, Stage

ROOT = Path(__file__).parent.parent.parent


def program(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.many_senders", name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def record(sent: SentLog, process: subprocess.Popen[str]) -> int:
    """What a program says was returned to it, and its exit status."""
    output, _ = process.communicate(timeout=60)
    for line in output.splitlines():
        event_id, _, data = line.partition(" ")
        sent.returned(event_id, data)
    return process.returncode


def assert_stored(scene: Scene, sent: SentLog) -> None:
    in_the_log = {e.last_event_id: e.data for e in stored(scene.admin, scene.log_key)}
    assert sent.payloads == in_the_log


def naive_room(scene: Scene) -> str:
    """A stream for naive senders only."""
    return f"{scene.room} naive"


def in_the_naive_room(scene: Scene) -> list[MessageEvent]:
    return stored(scene.admin, f"{scene.stage.prefix}:{{{naive_room(scene)}}}:log")


def test_32_threads_while_connections_are_killed(stage: Stage):
    """What they naively share is one connection: replies go to whoever reads first."""
    with stage.scene(rate=20) as scene:
        sent = scene.sender.sent
        orders: list[list[str]] = [[] for _ in range(32)]
        manager = StreamManager(stage.redis.url, config=scene.sender.config)

        def send(order: list[str], name: str) -> None:
            for n in range(25):
                key = None
                while True:
                    try:
                        event_id = manager.send_event(
                            scene.room, f"{name} {n}", idempotency_key=key
                        )
                        break
                    except RedisUnavailable as error:
                        key = error.idempotency_key
                sent.returned(event_id, f"{name} {n}")
                order.append(event_id)

        threads = [
            threading.Thread(target=send, args=(order, f"thread {n}"))
            for n, order in enumerate(orders)
        ]
        for thread in threads:
            thread.start()
        while alive := [thread for thread in threads if thread.is_alive()]:
            scene.admin.client_kill_filter(_type="normal", skipme=True)
            alive[0].join(0.1)
        for thread in threads:
            thread.join(30)
        manager.close()

        scene.wait_complete(5)
        scene.finish()
        assert_stored(scene, sent)
        for order in orders:
            positions = [position_of(event_id) for event_id in order]
            assert len(order) == 25
            assert positions == sorted(positions)
        send_naively_in_threads(scene)


def send_naively_in_threads(scene: Scene) -> None:
    with contextlib.closing(SharedConnection(scene.stage.redis.url, scene.stage.prefix)) as shared:
        with ThreadPoolExecutor(32) as threads:
            told = threads.map(
                lambda n: shared.send_some(naive_room(scene), f"thread {n}"), range(32)
            )
        assert_mixed_up(itertools.chain(*told), in_the_naive_room(scene))


def test_500_tasks(scene: Scene):
    """Naively each takes a connection of redis-py's, and there are no more than a manager has."""
    sent = scene.sender.sent
    orders: list[list[str]] = []

    async def send(streams: AsyncStreamManager, name: str) -> None:
        order: list[str] = []
        for n in range(2):
            event_id = await streams.send_event(scene.room, f"{name} {n}")
            sent.returned(event_id, f"{name} {n}")
            order.append(event_id)
        orders.append(order)

    async def main() -> None:
        config = scene.sender.config
        async with AsyncStreamManager(scene.stage.redis.url, config=config) as streams:
            await asyncio.gather(*(send(streams, f"task {n}") for n in range(500)))

    async def naively() -> None:
        naive = NaiveAsyncSender(scene.stage.redis.url, scene.stage.prefix, naive_room(scene))
        await asyncio.gather(*(naive.send(f"task {n}") for n in range(500)))
        await naive.close()
        naive.assert_caught(redis.MaxConnectionsError)
        assert_lost((f"task {n}" for n in range(500)), in_the_naive_room(scene))

    asyncio.run(main())
    asyncio.run(naively())

    scene.wait_complete(5)
    scene.finish()
    assert_stored(scene, sent)
    assert len(orders) == 500
    assert all(position_of(first) < position_of(second) for first, second in orders)


def test_asyncio_run_100_times_with_one_manager(stage: Stage, prefix: str):
    """redis-py's own client keeps the connection of a loop that is closed, and raises."""
    streams = AsyncStreamManager(stage.redis.url, config=StreamConfig(prefix=prefix))
    ids: list[str] = []

    async def job(n: int) -> None:
        async with streams.subscribe("room") as events:
            sent = await asyncio.gather(*(streams.send_event("room", f"{n} {i}") for i in range(3)))
            ids.extend(sorted(sent, key=position_of))
            received = []
            async for event in events:
                received.append(event.id)
                if len(received) == 3:
                    break
        assert received == ids[-3:]

    with contextlib.closing(stage.admin()) as store:
        before = len(store.client_list())
        for n in range(100):
            # Every third job closes the manager itself; the others just end.
            asyncio.run(job(n))
            if n % 3 == 0:
                asyncio.run(streams.aclose())
        asyncio.run(streams.aclose())
        assert len(set(ids)) == 300
        assert [position_of(i)[1] for i in ids] == list(range(1, 301))
        # It leaves its sockets to the garbage collector, hence a process of its own.
        process = program("asyncio_run_naively", stage.redis.url, prefix, "naive")
        process.communicate(timeout=20)
        assert process.returncode == 0, "the test has no teeth"
        Deadline(5).until(lambda: len(store.client_list()) <= before, store.client_list)


def test_processes_that_send_and_die_at_once(scene: Scene):
    """Who naively hands events to a thread and returns has lost them."""
    for how in ("exited", "killed"):
        process = program("and_die", scene.stage.redis.url, scene.stage.prefix, scene.room, how)
        status = record(scene.sender.sent, process)
        assert status == (0 if how == "exited" else -9)

    scene.wait_complete(2)
    sent = scene.finish()
    assert {"exited", "killed"} <= set(sent.payloads.values())
    process = program(
        "and_die_naively", scene.stage.redis.url, scene.stage.prefix, naive_room(scene)
    )
    accepted = process.communicate(timeout=20)[0].splitlines()
    assert len(accepted) == 3
    assert_lost(accepted, in_the_naive_room(scene))


def test_forks_at_random_moments_while_threads_send(scene: Scene, seed: int):
    """Naively they send over the connection that they inherited."""
    process = program(
        "while_forking", scene.stage.redis.url, scene.stage.prefix, scene.room, str(seed)
    )
    assert record(scene.sender.sent, process) == 0, f"a child hangs or mixed up; seed {seed}"

    scene.wait_complete(5)
    sent = scene.finish()
    assert len([data for data in sent.payloads.values() if data.startswith("child")]) == 8 * 5
    assert_stored_ids(scene.admin, scene.log_key, sent)
    process = program(
        "while_forking_naively", scene.stage.redis.url, scene.stage.prefix, naive_room(scene)
    )
    told = [line.split(" ", 1) for line in process.communicate(timeout=60)[0].splitlines()]
    assert_mixed_up(told, in_the_naive_room(scene))


def assert_stored_ids(store: redis.Redis, log_key: str, sent: SentLog) -> None:
    # The programs keep 1,000 events; what they keep is what was returned.
    kept = {e.last_event_id: e.data for e in stored(store, log_key)}
    assert kept.items() <= sent.payloads.items()


def test_ends_that_race_senders_in_other_processes(stage: Stage):
    with stage.scene(rate=20) as scene:
        # The scene's own sender would be refused.
        scene.sender.stop()
        sent = scene.sender.sent
        programs = [
            program("until_the_end", stage.redis.url, stage.prefix, scene.room, f"process {n}")
            for n in range(3)
        ]
        for browser in scene.browsers:
            browser.wait_for(len(browser.messages) + 100, 15)
        # Each ends it twice, all at once; one of them never gets its first reply.
        enders = [
            program("end_it", url, stage.prefix, scene.room)
            for url in (stage.redis.url, stage.redis.url, stage.senders.url)
        ]
        for each in enders:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        stage.senders.mark(b"EVALSHA", Fate.LOST)
        for each in reversed(enders):
            assert each.stdin is not None
            each.stdin.write("now\n")
            each.stdin.flush()
        answers = [each.communicate(timeout=20)[0].split() for each in enders]
        assert [record(sent, process) for process in programs] == [0, 0, 0]

        # One of them ended it, and it only when it asked for the first time.
        assert sorted(answers) == [["False", "False"], ["False", "False"], ["True", "False"]]
        assert not stage.senders.marked
        for browser in scene.browsers:
            browser.wait_for(lambda b: b.state is ReadyState.CLOSED, 10, "closed for good")
            assert browser.events[-1].type == "stream-end"
            assert browser.events[-1].data == "bye"
            assert browser.statuses == [200, 204]
            Delivery(sent, browser.events).assert_exactly_once()
        assert len({tuple(browser.data) for browser in scene.browsers}) == 1
        # To what only listens an end is one more event: it waits for the next for ever.
        assert scene.naive.events[-1].type == "stream-end"
        assert scene.naive.is_listening
