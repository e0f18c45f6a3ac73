"""A stream beside the loop that people write by hand, in a real Chromium: the README's picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from streamy_redis import StreamManager
from tests.deadline import Deadline
from tests.faults.proxy import Proxy
from tests.servers import RedisServer
from tests.web_servers import KINDS, WebServer

# Numbers of a row of the page: sent before, during or after a fault.
ROW = 24


@pytest.fixture
def way_to_redis(redis_server: RedisServer) -> Iterator[Proxy]:
    with Proxy(redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def site(way_to_redis: Proxy) -> Iterator[WebServer]:
    env = {"TEST_REDIS_URL": way_to_redis.url}
    with WebServer(KINDS["uvicorn"], "tests.apps.by_hand:app", workers=2, env=env) as site:
        yield site


class Numbers:
    """Sends the same numbers to both."""

    def __init__(self, redis_server: RedisServer) -> None:
        self.newest = 0
        self._streams = StreamManager(redis_server.url)
        self._store = redis_server.connect()

    def send_a_row(self) -> None:
        for _ in range(ROW):
            self.newest += 1
            self._streams.send_event("numbers", self.newest)
            self._store.publish("by-hand", self.newest)

    def probe(self) -> None:
        """No number, and for the loop alone: who hears it hears what comes next."""
        self._store.publish("by-hand", 0)

    def close(self) -> None:
        self._streams.close()
        self._store.close()


@pytest.fixture
def numbers(redis_server: RedisServer) -> Iterator[Numbers]:
    numbers = Numbers(redis_server)
    yield numbers
    numbers.close()


def becomes(page: Any, expression: str) -> None:
    Deadline(20).until(lambda: page.evaluate(expression), lambda: page.evaluate("received"))


def arrives(page: Any, numbers: Numbers) -> None:
    becomes(page, f"Object.values(received).every(numbers => numbers.includes({numbers.newest}))")


def listens(page: Any, numbers: Numbers) -> None:
    """The loop does, again; that ours misses nothing is what is tested."""
    heard = "received['by-hand'].filter(number => number === 0).length"
    before = page.evaluate(heard)

    def is_heard() -> bool:
        numbers.probe()
        return page.evaluate(heard) > before

    Deadline(20).until(is_heard, "the loop listens", every=0.1)


def is_dead(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_loop_by_hand_loses_what_a_stream_delivers(
    context: Any,
    site: WebServer,
    numbers: Numbers,
    way_to_redis: Proxy,
    picture: Callable[..., None],
):
    page = context.new_page()
    page.goto(site.url)
    becomes(page, "isOpen")
    listens(page, numbers)
    numbers.send_a_row()
    arrives(page, numbers)

    killed = site.workers()
    for worker in killed:
        worker.kill()
    Deadline(10).until(lambda: all(map(is_dead, killed)), "they are dead")
    numbers.send_a_row()
    listens(page, numbers)
    numbers.send_a_row()
    arrives(page, numbers)

    way_to_redis.cut_silently()
    numbers.send_a_row()
    way_to_redis.let_new_through()
    way_to_redis.kill_connections()
    listens(page, numbers)
    numbers.send_a_row()
    arrives(page, numbers)

    picture(page, "by-hand", width=1040, height=310)
    assert page.evaluate("received.ours") == [*range(1, 5 * ROW + 1)]
    by_hand = set(page.evaluate("received['by-hand']"))
    for row in (1, 3):
        assert not by_hand.issuperset(range(ROW * row + 1, ROW * (row + 1) + 1)), "no fault"
