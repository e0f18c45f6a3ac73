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
        self._gone: set[str] = set()

    def send_a_row(self) -> None:
        for _ in range(ROW):
            self.newest += 1
            self._streams.send_event("numbers", self.newest)
            self._store.publish("by-hand", self.newest)

    def wait_heard(self) -> None:
        """Both listen, and on other connections than the last time."""
        Deadline(20).until(lambda: len(self._listeners() - self._gone) == 2, "both listen")
        self._gone |= self._listeners()

    def _listeners(self) -> set[str]:
        return {client["id"] for client in self._store.client_list(_type="pubsub")}

    def close(self) -> None:
        self._streams.close()
        self._store.close()


@pytest.fixture
def numbers(redis_server: RedisServer) -> Iterator[Numbers]:
    numbers = Numbers(redis_server)
    yield numbers
    numbers.close()


def arrives(page: Any, number: int) -> None:
    for name in ("ours", "by-hand"):
        page.wait_for_function(f"received['{name}'].includes({number})", timeout=20_000)


def test_a_loop_by_hand_loses_what_a_stream_delivers(
    context: Any,
    site: WebServer,
    numbers: Numbers,
    way_to_redis: Proxy,
    picture: Callable[..., None],
):
    page = context.new_page()
    page.goto(site.url)
    numbers.wait_heard()
    numbers.send_a_row()
    arrives(page, numbers.newest)

    killed = site.workers()
    for worker in killed:
        worker.kill()
    psutil.wait_procs(killed, timeout=10)
    numbers.send_a_row()
    numbers.wait_heard()
    numbers.send_a_row()
    arrives(page, numbers.newest)

    way_to_redis.cut_silently()
    numbers.send_a_row()
    way_to_redis.let_new_through()
    way_to_redis.kill_connections()
    numbers.wait_heard()
    numbers.send_a_row()
    arrives(page, numbers.newest)

    picture(page, "by-hand", width=1040, height=310)
    assert page.evaluate("received.ours") == [*range(1, 5 * ROW + 1)]
    by_hand = set(page.evaluate("received['by-hand']"))
    for row in (1, 3):
        assert not by_hand.issuperset(range(ROW * row + 1, ROW * (row + 1) + 1)), "no fault"
