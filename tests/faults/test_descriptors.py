"""More clients than a process has descriptors for: who is in stays, who is too many is told so."""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
import urllib.parse
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment, http

from .crowd import OPENED, CrowdClient

LIMIT = 96
WORKERS = 2
# Two and a half times as many as both workers have descriptors for, as 2,600 are for 1,024 each.
CLIENTS = 240
# Seconds.
LONGEST_PAGE = 2.0


@pytest.fixture(params=["gunicorn-gthread", "gunicorn-gevent", "gunicorn-sync", "uvicorn"])
def site(
    request: pytest.FixtureRequest, shared_servers: SharedServers, prefix: str
) -> Iterator[Site]:
    """A server whose processes may have few descriptors, and never more."""
    kind = KINDS[request.param]
    url = shared_servers.url("valkey")
    server = WebServer(
        kind, app_for(kind), workers=WORKERS, env=environment(url, prefix=prefix, **CONFIG)
    ).start()
    site = Site(server, url, prefix)
    for process in (psutil.Process(server.child.pid), *server.workers()):
        process.rlimit(psutil.RLIMIT_NOFILE, (LIMIT, LIMIT))
    yield site
    site.close()


class Visitor:
    """Asks for an ordinary page, again and again, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._leaving = threading.Event()
        self.waits: list[float] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._visit)

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._leaving.set()
        self._thread.join()

    def wait_answered(self, count: int) -> None:
        """Until it had so many more answers."""
        until = len(self.waits) + count
        Deadline(10).until(lambda: len(self.waits) >= until, "pages are answered")

    def _visit(self) -> None:
        while not self._leaving.wait(0.01):
            asked = time.monotonic()
            try:
                answer = http.get(self._url, timeout=10)
                if answer.status_code != 200:
                    self.failures.append(str(answer))
            except httpx.HTTPError as exc:
                self.failures.append(repr(exc))
            self.waits.append(time.monotonic() - asked)


class Throng:
    """Clients that all come at once, and don't come back."""

    def __init__(self, port: int, path: str, count: int) -> None:
        self.are_in: list[CrowdClient] = []
        self.are_refused: list[CrowdClient] = []
        self._selector = selectors.DefaultSelector()
        self._undecided = set()
        for _ in range(count):
            client = CrowdClient(port, path)
            self._selector.register(client.socket, selectors.EVENT_READ, client)
            self._undecided.add(client)

    def wait_decided(self, seconds: float) -> None:
        def are_decided() -> bool:
            self.read(0.1)
            return not self._undecided

        Deadline(seconds).until(are_decided, lambda: f"{len(self._undecided)} wait", every=0)

    def read(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            client: CrowdClient = key.data
            if not client.receive():
                self._selector.unregister(client.socket)
                client.socket.close()
                assert client in self._undecided, "one that was in is cut"
                self._decide(client, self.are_refused)
            elif client in self._undecided and client.has(OPENED):
                self._decide(client, self.are_in)

    def wait_heard(self, words: bytes, seconds: float) -> None:
        """Until all that are in have received it."""

        def have_heard() -> bool:
            self.read(0.1)
            return all(client.has(words) for client in self.are_in)

        Deadline(seconds).until(have_heard, f"those who are in get {words!r}", every=0)

    def _decide(self, client: CrowdClient, those: list[CrowdClient]) -> None:
        self._undecided.remove(client)
        those.append(client)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()


def test_a_crowd_beyond_the_limit_harms_nobody(site: Site, room: str):
    workers = {worker.pid for worker in site.server.workers()}
    path = urllib.parse.urlsplit(site.server.stream_url("events", room)).path

    with (
        Visitor(f"{site.server.url}/ping") as visitor,
        contextlib.closing(Throng(site.server.port, path, CLIENTS)) as throng,
    ):
        throng.wait_decided(20)
        site.streams.send_event(room, "for all")
        throng.wait_heard(b"data: for all\n", 5)
        visitor.wait_answered(20)

    print(f"{len(throng.are_in)} in, {len(throng.are_refused)} refused, {max(visitor.waits):.2f} s")
    assert {worker.pid for worker in site.server.workers()} == workers, site.server.output[-4000:]
    assert len(throng.are_in) > WORKERS * LIMIT / 3
    for client in throng.are_refused:
        assert client.statuses == [503], bytes(client.answers[0])
        assert b"retry-after: " in bytes(client.answers[0]).lower()
    assert not visitor.failures
    assert max(visitor.waits) < LONGEST_PAGE
