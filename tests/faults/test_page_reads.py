"""A crowd that comes back to one stream, each with a cursor of its own; and what one page costs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
import redis

from streamy_redis import StreamConfig, StreamManager
from tests.servers import RedisServer
from tests.sites import app_for
from tests.web_servers import KINDS, WebServer, environment

from .crowd import Crowd, CrowdClient

EVENTS = 1000
CLIENTS = 120
WORKERS = 2


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def streams(server: RedisServer) -> Iterator[StreamManager]:
    with StreamManager(server.url, config=StreamConfig(prefix="crowd")) as streams:
        yield streams


def filled(streams: StreamManager) -> list[str]:
    """The ids of a full history of 1 KB an event."""
    return [
        event_id
        for _ in range(EVENTS // 100)
        for event_id in streams.send_events("room", ["x" * 1000] * 100)
    ]


class Sends:
    """Somebody who goes on sending to another stream, and is never refused."""

    def __init__(self, streams: StreamManager) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._streams = streams
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        try:
            while not self._is_over.wait(0.02):
                self._streams.send_event("elsewhere", "y")
                self.count += 1
        except Exception as exc:
            self.error = exc

    def __enter__(self) -> Sends:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join(10)
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def slowed(server: RedisServer) -> Iterator[None]:
    """Redis has a third of the time."""
    is_over = threading.Event()

    def hold_up() -> None:
        while not is_over.wait(0.01):
            server.hang()
            is_over.wait(0.02)
            server.go_on()

    thread = threading.Thread(target=hold_up)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn-gthread", "gunicorn-gevent"])
def test_a_crowd_with_a_cursor_each_has_its_pages_and_no_send_is_refused(
    server: RedisServer, streams: StreamManager, kind: str
):
    """Although Redis has a third of its time.

    Of 2,000 at 24 workers, each of whom had a page read for itself, none had it after 90 s.
    """
    ids = filled(streams)
    epoch = int(ids[0].partition("-")[0])
    # Half of them have seen nothing yet: what they miss is all there is.
    cursors = [f"{epoch - n}-0-0" for n in range(1, CLIENTS // 2)] + ids[: CLIENTS // 2]
    web = WebServer(
        KINDS[kind],
        app_for(KINDS[kind]),
        workers=WORKERS,
        env=environment(server.url, prefix="crowd"),
    )
    with web, contextlib.closing(Crowd()) as crowd, server.connect() as store:
        store.config_resetstat()
        with slowed(server), Sends(streams) as sends:
            for n, cursor in enumerate(cursors):
                crowd.add(CrowdClient(web.port, f"/events/room?n={n}", cursor))
            crowd.read_until(lambda client: client.has(ids[-1].encode()), 20)
        pages = commands(store, "exec")

    assert sends.count > 0
    assert crowd.connects == len(cursors)
    for client, cursor in zip(crowd.clients, cursors, strict=True):
        missed = ids[ids.index(cursor) + 1 :] if cursor in ids else ids
        assert [event_id for event_id, _ in client.all_events()] == missed
    # One page is read for all who wait for it.
    assert pages < len(cursors) / 2


def test_nothing_is_read_for_a_crowd_that_has_left(server: RedisServer, streams: StreamManager):
    ids = filled(streams)
    web = WebServer(
        KINDS["uvicorn"],
        app_for(KINDS["uvicorn"]),
        env=environment(server.url, prefix="crowd", position_check_interval=60),
    )
    with web, server.connect() as store:
        with contextlib.closing(Crowd()) as crowd:
            server.hang()
            for n, cursor in enumerate(ids[:50]):
                crowd.add(CrowdClient(web.port, f"/events/room-{n}", cursor))
            # The last one has been seen when its first block has come.
            crowd.read_until(lambda client: client.has(b"retry:"), 10)
        server.go_on()
        # Whoever comes now has been served after those who left.
        with contextlib.closing(Crowd([CrowdClient(web.port, "/events/room", ids[0])])) as crowd:
            crowd.read_until(lambda client: client.has(ids[-1].encode()), 10)
        reads = commands(store, "evalsha") + commands(store, "eval")

    # What was under way when Redis stopped, and the look and the page of the last.
    assert reads - EVENTS // 100 < 10


def test_a_page_for_a_new_cursor_costs_redis_little(server: RedisServer, streams: StreamManager):
    """By its own count little more than the entries themselves: 0.7 to 1.2 ms on a quiet machine.

    Where Lua looks at each it takes 4.4 ms and more.
    """
    epoch = int(filled(streams)[0].partition("-")[0])
    costs = []
    with server.connect() as store:
        for n in range(1, 11):
            # Another process each time: nothing is kept.
            with StreamManager(server.url, config=StreamConfig(prefix="crowd")) as reader:
                store.config_resetstat()
                start = f"{epoch - n}-0-0"
                with reader.subscribe("room", last_event_id=start, timeout=10) as subscription:
                    for _ in range(EVENTS):
                        next(subscription)
                costs.append(cost(store))
        plain = []
        for _ in range(10):
            store.config_resetstat()
            store.execute_command("XRANGE", "crowd:{room}:log", "-", "+")
            plain.append(store.info("commandstats")["cmdstat_xrange"]["usec"])

    assert min(costs) < 2 * min(plain), (costs, plain)


def commands(store: redis.Redis, name: str) -> int:
    return int(store.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"])


def cost(store: redis.Redis) -> float:
    """Microseconds that Redis took for what it was asked, with what the scripts asked in turn."""
    stats = store.info("commandstats")
    asked = ("evalsha", "eval", "multi", "exec", "subscribe", "unsubscribe")
    return sum(float(stats.get(f"cmdstat_{name}", {"usec": 0})["usec"]) for name in asked)
