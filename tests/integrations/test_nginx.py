"""integrations/nginx: its configuration, as it is, in front of two replicas of the board."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psutil
import pytest

from streamy_redis import StreamConfig, StreamManager
from tests.browser import EventSource, ReadyState
from tests.deadline import Deadline
from tests.exactly_once import Delivery
from tests.faults.senders import Sender
from tests.nginx import SHIPPED, Nginx, shipped
from tests.readme.document import table
from tests.servers import RedisServer
from tests.sites import Site
from tests.web_servers import ROOT, ServerKind, WebServer, http

BOARD = ServerKind(
    "gunicorn-flask",
    ["gunicorn", "--bind", "127.0.0.1:{port}", "{app}"],
    is_asgi=False,
    is_up="Booting worker",
)
OFF = "proxy_buffering off;"
# What an nginx does that was told to, and one behind something that takes the header out.
HEADER_IGNORED = "proxy_ignore_headers X-Accel-Buffering;"


class Replicas:
    """Two gunicorns with the board, on a Redis of their own, and a sender: this process."""

    def __init__(self, redis_server: RedisServer) -> None:
        self.servers = [
            WebServer(
                BOARD,
                "app:app",
                env={"STREAMY_REDIS_URL": redis_server.url, "WEB_CONCURRENCY": "1"},
                directory=ROOT / "integrations" / "gunicorn-flask",
                ready="/",
            )
            for _ in range(2)
        ]
        for server in self.servers:
            server.start()
        self.streams = StreamManager(redis_server.url, config=StreamConfig(prefix="board"))
        self._redis_url = redis_server.url
        self._store = redis_server.connect()

    @property
    def addresses(self) -> dict[str, str]:
        names = ("flask-1:8000", "flask-2:8000")
        return {
            name: f"127.0.0.1:{server.port}"
            for name, server in zip(names, self.servers, strict=True)
        }

    def sender(self, stream_id: str) -> Sender:
        return Sender(self._redis_url, "board", stream_id, rate=20)

    def have(self, stream_id: str) -> bool:
        """Whether somebody is subscribed to the stream."""
        [(_, count)] = self._store.pubsub_numsub(f"board:{{{stream_id}}}")
        return bool(count)

    def close(self) -> None:
        self._store.close()
        self.streams.close()
        for server in self.servers:
            server.close()


@pytest.fixture(scope="module")
def replicas() -> Iterator[Replicas]:
    with RedisServer() as redis_server:
        replicas = Replicas(redis_server)
        yield replicas
        replicas.close()


def page_of(nginx: Nginx, stream_id: str, page: int = 1) -> EventSource:
    return EventSource(f"{nginx.url}/stream/{page}?stream={quote(stream_id)}")


class Visitor:
    """Asks for the board, one request after the other, and notes the answers."""

    def __init__(self, nginx: Nginx) -> None:
        self.statuses: list[int] = []
        self._url = nginx.url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(0.02):
            self.statuses.append(http.get(f"{self._url}/info").status_code)

    def stop(self) -> list[int]:
        self._stopping.set()
        self._thread.join(15)
        assert not self._thread.is_alive()
        return self.statuses


@pytest.mark.parametrize(
    "buffering",
    [OFF, f"{OFF} {HEADER_IGNORED}", ""],
    ids=["as shipped", "by the directive alone", "by the header alone"],
)
def test_an_event_comes_at_once(replicas: Replicas, room: str, buffering: str):
    with shipped(replicas.addresses, {OFF: buffering}) as nginx, page_of(nginx, room) as page:
        page.wait_open()

        began = time.monotonic()
        replicas.streams.send_event(room, "hello")
        page.wait_for(1)

        assert page.arrivals[-1] - began < 0.5


def test_an_nginx_that_buffers_passes_each_chunk_on(replicas: Replicas, room: str):
    """What it buffers is a body without chunks, as one of HTTP/1.0."""
    with shipped(replicas.addresses, {OFF: HEADER_IGNORED}) as nginx, page_of(nginx, room) as page:
        Deadline(10).until(lambda: replicas.have(room), "a replica has the request")
        replicas.streams.send_event(room, "hello")

        assert page.wait_for(1, 5).messages[0].data == "hello"


def test_keep_alives_hold_a_stream_open_that_nginx_would_cut(
    new_site: Callable[..., Site], room: str
):
    changes = {"proxy_read_timeout 60s": "proxy_read_timeout 1s", "/stream/": "/events/"}
    pages = []
    with contextlib.ExitStack() as stack:
        for interval in (0.3, 15.0):
            port = new_site("gunicorn-gthread", keep_alive_interval=interval).server.port
            address = f"127.0.0.1:{port}"
            addresses = {"flask-1:8000": address, "flask-2:8000": address}
            nginx = stack.enter_context(shipped(addresses, changes))
            pages.append(stack.enter_context(EventSource(f"{nginx.url}/events/{quote(room)}")))
        often, rarely = (page.wait_open() for page in pages)

        rarely.wait_for(lambda page: page.opens == 3, 10, "cut twice")

        assert often.connects == 1
        assert often.state is ReadyState.OPEN


def test_nginx_waits_longer_than_the_keep_alives_take():
    [timeout] = re.findall(r"proxy_read_timeout (\d+)s;", SHIPPED.read_text())

    assert int(timeout) >= 2 * StreamConfig().keep_alive_interval


def test_the_readme_explains_what_is_there():
    config = SHIPPED.read_text()
    rows = table("in `nginx.conf`", SHIPPED.with_name("README.md").read_text())

    assert rows
    for row in rows:
        for line in re.findall("`([^`]+)`", row[0]):
            assert line in config


def test_a_rolling_restart_loses_nothing(replicas: Replicas, room: str):
    with shipped(replicas.addresses) as nginx, contextlib.ExitStack() as stack:
        pages = [stack.enter_context(page_of(nginx, room, page)) for page in range(6)]
        for page in pages:
            page.wait_open()
        sender, visitor = replicas.sender(room), Visitor(nginx)

        for server in replicas.servers:
            server.terminate(within=5)
            server.start()

        for page in pages:
            page.wait_for(lambda page: page.opens >= 2, 10, "it moved to the other replica")
        sent, statuses = sender.stop(), visitor.stop()
        for page in pages:
            page.wait_for(lambda page: page.last_event_id == sent.ids[-1], 10, "the last event")
            Delivery(sent, page.events).assert_exactly_once()
            assert set(page.statuses) == {200}
        assert len(statuses) > 20
        assert set(statuses) == {200}


def test_pages_outlast_the_absence_of_all_replicas(replicas: Replicas, room: str):
    with shipped(replicas.addresses) as nginx, page_of(nginx, room) as page:
        page.wait_open()
        for server in replicas.servers:
            server.terminate(within=5)

        page.wait_for(lambda page: page.opens >= 2, 10, "an answer without a replica")
        assert http.get(f"{nginx.url}/info").status_code == 502
        # More than the board replays to a page that has forgotten where it was.
        ids = replicas.streams.send_events(room, ["meanwhile"] * 50)
        for server in replicas.servers:
            server.start()

        page.wait_for(len(ids))
        assert [event.last_event_id for event in page.messages] == ids
        assert set(page.statuses) == {200}


def test_a_reload_ends_the_old_workers_and_loses_nothing(replicas: Replicas, room: str):
    with shipped(replicas.addresses, {"timeout 5s": "timeout 1s"}) as nginx:
        old = nginx.child.children()
        with page_of(nginx, room) as page:
            page.wait_open()
            sender = replicas.sender(room)

            nginx.reload()

            Deadline(10).until(lambda: not any(map(psutil.Process.is_running, old)), old)
            page.wait_for(lambda page: page.opens == 2, 10, "it came back")
            sent = sender.stop()
            page.wait_for(lambda page: page.last_event_id == sent.ids[-1], 10, "the last event")
            Delivery(sent, page.events).assert_exactly_once()
