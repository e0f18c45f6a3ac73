"""The promise under faults, as issue 2 lists it: real servers of both frameworks side by side."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil
import pytest

from streamy_redis import RedisUnavailable, StreamConfig, StreamManager

from .browser import EventSource, ReadyState
from .deadline import Deadline
from .exactly_once import Delivery, SentLog
from .servers import RedisServer
from .sites import Site
from .web_servers import http

CLIENTS = 4
BOTH = ["gunicorn-gthread", "uvicorn"]


class Sender:
    """A process's worth of sending: one event after another at a steady rate, until stopped.

    A send that raises is repeated with its key, as the documentation tells senders to do.
    """

    def __init__(self, url: str, prefix: str, room: str, *, rate: float) -> None:
        self.sent = SentLog()
        self.outages = 0
        self._streams = StreamManager(url, config=StreamConfig(prefix=prefix))
        self._room = room
        self._interval = 1 / rate
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            data = f"event {number}"
            self.sent.returned(self._send(data), data)
            number += 1
            due = max(due + self._interval, time.monotonic() - 1)

    def _send(self, data: str) -> str:
        key = None
        while True:
            try:
                return self._streams.send_event(self._room, data, idempotency_key=key)
            except RedisUnavailable as error:
                self.outages += 1
                key = error.idempotency_key

    def stop(self) -> SentLog:
        self._stopping.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), "a send hangs"
        self._streams.close()
        return self.sent


@dataclass
class Stage:
    """Both frameworks on one Redis, clients on both, and a sender."""

    sites: list[Site]
    browsers: list[EventSource]
    sender: Sender

    def finish(self) -> SentLog:
        """Stop sending and wait until every client has the last event."""
        sent = self.sender.stop()
        last = sent.ids[-1]
        for browser in self.browsers:
            browser.wait_for(
                lambda b: b.messages and b.messages[-1].last_event_id == last, 15, "the last event"
            )
        return sent

    def all_connected(self) -> bool:
        return all(b.connects == 1 and b.state is ReadyState.OPEN for b in self.browsers)


@pytest.fixture
def stage(new_site: Callable[..., Site], prefix: str) -> Iterator[Callable[..., Stage]]:
    senders: list[Sender] = []

    def build(url: str, room: str, *, rate: float) -> Stage:
        sites = [new_site(kind, url=url) for kind in BOTH]
        browsers = [site.browser(room).wait_open() for site in sites for _ in range(CLIENTS)]
        senders.append(Sender(url, prefix, room, rate=rate))
        return Stage(sites, browsers, senders[-1])

    yield build
    for sender in senders:
        sender.stop()


def test_200_killed_feeds_lose_and_repeat_nothing_and_no_client_notices(
    stage: Callable[..., Stage], redis_server: RedisServer, room: str
):
    on_stage = stage(redis_server.url, room, rate=100)
    store = redis_server.connect()
    killed = 0
    for _ in range(200):
        killed += store.client_kill_filter(_type="pubsub")
        Deadline(0.04).stays(lambda: True)

    sent = on_stage.finish()

    # A feed that is killed as soon as it is made waits for up to half a second.
    assert killed >= 40, "there was something to kill"
    assert len(sent) >= 500
    for browser in on_stage.browsers:
        Delivery(sent, browser.events).assert_exactly_once()
    assert on_stage.all_connected()
    store.close()


def test_redis_stopped_for_10_s_and_continued_is_complete_and_no_client_notices(
    stage: Callable[..., Stage], redis_server: RedisServer, room: str
):
    on_stage = stage(redis_server.url, room, rate=50)
    for browser in on_stage.browsers:
        browser.wait_for(20)

    redis_server.hang()
    try:
        Deadline(10).stays(on_stage.all_connected, lambda: on_stage.browsers, every=0.1)
    finally:
        redis_server.go_on()
    seen = len(on_stage.browsers[0].messages)
    for browser in on_stage.browsers:
        browser.wait_for(seen + 20, 5)

    sent = on_stage.finish()

    assert on_stage.sender.outages >= 1
    for browser in on_stage.browsers:
        Delivery(sent, browser.events).assert_exactly_once()
    assert on_stage.all_connected()


def test_redis_restarted_empty_is_one_reset_then_live_and_no_client_notices(
    stage: Callable[..., Stage], redis_server: RedisServer, room: str
):
    on_stage = stage(redis_server.url, room, rate=50)
    for browser in on_stage.browsers:
        browser.wait_for(20)

    redis_server.kill()
    Deadline(1).stays(on_stage.all_connected)
    redis_server.restart(empty=True)
    for browser in on_stage.browsers:
        browser.wait_for(lambda b: b.of_type("stream-reset"), 10, "the reset")
    seen = len(on_stage.browsers[0].messages)
    on_stage.browsers[0].wait_for(seen + 20, 5)

    sent = on_stage.finish()

    for browser in on_stage.browsers:
        Delivery(sent, browser.events).assert_exactly_once(resets=1)
        (reset,) = browser.of_type("stream-reset")
        told = json.loads(reset.data)
        at = browser.events.index(reset)
        before, after = browser.events[at - 1], browser.events[at + 1]
        assert told["requested"] == before.last_event_id
        # None where the log was still empty when the client learned of it.
        assert told["first"] in (None, after.last_event_id)
    assert on_stage.all_connected()


def redis_connections(pid: int, port: int) -> set[int]:
    """The local ports of a process's connections to a server."""
    return {
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.raddr and connection.raddr.port == port and connection.status == "ESTABLISHED"
    }


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "uvicorn"])
def test_a_process_with_100_open_streams_has_one_feed_and_four_more_connections(
    new_site: Callable[..., Site], redis_server: RedisServer, room: str, kind: str
):
    site = new_site(kind, url=redis_server.url)
    store = redis_server.connect()
    browsers = [site.browser(f"{room} {n}") for n in range(100)]
    for browser in browsers:
        browser.wait_open()
    # Its own senders at work too, more of them than there are connections.
    threads = [
        threading.Thread(target=browser_send, args=(site, f"{room} {n}")) for n in range(0, 100, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    (worker,) = site.server.workers()
    ports = redis_connections(worker.pid, redis_server.port)
    clients = [c for c in store.client_list() if int(c["addr"].rpartition(":")[2]) in ports]
    feeds = [client for client in clients if int(client["sub"]) > 0]
    assert [int(feed["sub"]) for feed in feeds] == [100]
    assert len(clients) - len(feeds) <= 4
    store.close()


def browser_send(site: Site, stream_id: str) -> None:
    for _ in range(3):
        http.post(site.server.stream_url("send", stream_id), content="x").raise_for_status()


def visit(url: str, count: int) -> None:
    """Connect that many clients, see each stream open, and leave."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    path = "/" + url.removeprefix("http://").partition("/")[2]
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            clients.append(client)
        for client in clients:
            received = b""
            while b"event: stream-open\ndata: {}\n\n" not in received:
                chunk = client.recv(4096)
                assert chunk, received
                received += chunk


@pytest.mark.parametrize(
    ("kind", "at_once"), [("uvicorn", 50), ("gunicorn-gevent", 200), ("gunicorn-gthread", 200)]
)
def test_1000_connects_and_disconnects_leave_nothing_behind(
    new_site: Callable[..., Site], redis_server: RedisServer, room: str, kind: str, at_once: int
):
    site = new_site(kind, url=redis_server.url, keep_alive_interval=0.1)
    url = site.server.stream_url("events", room)
    store = redis_server.connect()

    def held() -> dict[str, int]:
        told = site.server.get_json("/worker")
        counts = {key: told[key] for key in ("threads", "fds", "tasks", "greenlets") if key in told}
        return {**counts, "clients": len(store.client_list())}

    def is_back(start: dict[str, int]) -> bool:
        now = held()
        return all(now[key] <= start[key] for key in start)

    # Once before, for what a process makes once and keeps.
    site.make_all_threads()
    visit(url, at_once)
    Deadline(10).until(lambda: site.subscribed(room) == 0, "the first have gone")
    start = held()
    for _ in range(1000 // at_once):
        visit(url, at_once)

    Deadline(15).until(lambda: site.subscribed(room) == 0, "all have gone")
    Deadline(10).until(lambda: is_back(start), lambda: (start, held()), every=0.1)
    store.close()
