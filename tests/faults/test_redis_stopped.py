"""Redis stops answering without closing a connection: SIGSTOP, then SIGCONT."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from functools import partial

import pytest
import redis

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamConfig, StreamManager
from tests.deadline import Deadline
from tests.servers import RedisServer

from .long_scenes import LongScenes
from .naive import NaiveSender, stored
from .stage import Stage


class Crowd:
    """More senders at once than a manager has connections, on threads and on an event loop."""

    def __init__(self, url: str, prefix: str) -> None:
        self.took: list[float] = []
        self.returned: dict[str, str] = {}
        self.errors = 0
        self.config = StreamConfig(prefix=prefix)
        self._url = url
        self._threads = [threading.Thread(target=self._in_tasks)]
        self._manager = StreamManager(url, config=self.config)
        self._threads += [threading.Thread(target=self._in_a_thread, args=(n,)) for n in range(32)]
        for thread in self._threads:
            thread.start()

    def _in_a_thread(self, n: int) -> None:
        key = None
        while True:
            start = time.monotonic()
            try:
                self.returned[f"thread {n}"] = self._manager.send_event(
                    "crowd", f"thread {n}", idempotency_key=key
                )
                return
            except RedisUnavailable as error:
                self.errors += 1
                key = error.idempotency_key
            finally:
                self.took.append(time.monotonic() - start)

    def _in_tasks(self) -> None:
        async def send(streams: AsyncStreamManager, n: int) -> None:
            key = None
            while True:
                start = time.monotonic()
                try:
                    self.returned[f"task {n}"] = await streams.send_event(
                        "crowd", f"task {n}", idempotency_key=key
                    )
                    return
                except RedisUnavailable as error:
                    self.errors += 1
                    key = error.idempotency_key
                finally:
                    self.took.append(time.monotonic() - start)

        async def main() -> None:
            async with AsyncStreamManager(self._url, config=self.config) as streams:
                await asyncio.gather(*(send(streams, n) for n in range(100)))

        asyncio.run(main())

    def assert_each_is_stored_once(self, store: redis.Redis) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive(), "a send hangs"
        self._manager.close()
        assert self.errors >= 132, "each was told"
        assert max(self.took) < self.config.send_timeout + 1, f"{max(self.took):.2f} s"
        in_the_log = stored(store, f"{self.config.prefix}:{{crowd}}:log")
        assert {e.data: e.last_event_id for e in in_the_log} == self.returned
        assert len(in_the_log) == len(self.returned) == 132


def test_stopped_for_a_crowd_of_senders(redis_server: RedisServer, prefix: str):
    """Each is told within send_timeout + 1 s, and may repeat what it doesn't know of."""
    redis_server.hang()
    try:
        crowd = Crowd(redis_server.url, prefix)
        Deadline(15).until(lambda: crowd.errors >= 132, "each was told")
    finally:
        redis_server.go_on()
    with contextlib.closing(redis_server.connect()) as store:
        crowd.assert_each_is_stored_once(store)


def stopped(stage: Stage, seconds: float) -> None:
    with (
        stage.scene() as scene,
        contextlib.closing(
            NaiveSender(stage.redis.url, stage.prefix, f"{scene.room} naive")
        ) as naive,
    ):
        with scene.redis_away():
            stage.redis.hang()
            try:
                naively = threading.Thread(target=naive.send, args=("once",))
                naively.start()
                outage = Deadline(seconds)
                scene.keep_alives_go_on()
                outage.stays(scene.is_connected, lambda: scene.browsers, every=0.1)
                scene.keep_alives_go_on()
            finally:
                stage.redis.go_on()
            scene.wait_complete(1)
        before = len(scene.sender.sent)
        Deadline(2).until(lambda: len(scene.sender.sent) > before + 20, "sends go on")

        scene.finish()

        assert scene.is_connected()
        scene.assert_stored_once()
        if seconds >= 10:
            assert scene.sender.errors, "senders are told"
        # What listens has its connection still; it is the naive sender that the fault harms.
        naively.join(60)
        naive.assert_caught()


LONG = {f"stopped {seconds} s": partial(stopped, seconds=seconds) for seconds in (30, 10, 2)}


@pytest.mark.parametrize("name", LONG)
def test_stopped(long_scenes: LongScenes, name: str):
    long_scenes.result(name)
