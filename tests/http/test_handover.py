"""Streams whose sockets the listener has taken over from gunicorn's workers.

What holds for every response on every server is in the other modules of this folder, which run
over these workers too. Here is what only a socket that was taken over can do, or get wrong.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import importlib.util
import os
import re
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.certificate import Certificate
from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.event_stream import events_of
from tests.exactly_once import Delivery, SentLog
from tests.faults.rude_clients import RudeClient
from tests.sites import CONFIG, Site
from tests.web_servers import GTHREAD_THREADS, KINDS, WSGI_KINDS, ServerKind, WebServer, environment
from tests.web_servers import http as client

APP = "tests.apps.handover_app:app"
OPENED = b"event: stream-open\ndata: {}\n"
# Nothing is noticed only because a keep-alive was due.
QUIET = {**CONFIG, "keep_alive_interval": 15.0}
ROOT = Path(__file__).parent.parent.parent


class Throng:
    """Many clients of one stream, on one thread: bare sockets, read only when asked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._selector = selectors.DefaultSelector()
        self.clients: list[RudeClient] = []

    def grow(self, count: int) -> Throng:
        """So many more, all of which have been told that the stream is open."""
        for start in range(0, count, 200):
            # No more at once than a listening socket holds.
            batch = [RudeClient(self._url) for _ in range(min(200, count - start))]
            for each in batch:
                each.read_until(OPENED)
                self._selector.register(each.socket, selectors.EVENT_READ, each)
            self.clients += batch
        return self

    def read_until(self, words: bytes, timeout: float) -> None:
        """Read until these have come to everybody."""
        missing = {each for each in self.clients if words not in each.received}

        def read() -> bool:
            for key, _ in self._selector.select(0.1):
                chunk = key.data.socket.recv(65536)
                assert chunk, key.data.received
                key.data.received += chunk
                if words in key.data.received:
                    missing.discard(key.data)
            return not missing

        Deadline(timeout).until(read, lambda: f"{len(missing)} miss {words!r}", every=0)

    def close(self) -> None:
        self._selector.close()
        for each in self.clients:
            each.close()


def guest(site: Site, stream_id: str, path: str = "events", **options: Any) -> RudeClient:
    """A client that has been told that the stream is open, and reads nothing more by itself."""
    url = site.server.stream_url(path, stream_id)
    return RudeClient(url, **options).read_until(OPENED)


def read_to_the_end(of: RudeClient) -> bytes:
    """All that still comes; an OSError if the connection is reset."""
    while chunk := of.socket.recv(65536):
        of.received += chunk
    return of.received


def descriptors(site: Site) -> int:
    """How many its worker has open."""
    return site.server.workers()[0].num_fds()


def cpu_seconds(site: Site) -> float:
    """How long its worker has computed so far."""
    times = site.server.workers()[0].cpu_times()
    return times.user + times.system


def settled(site: Site) -> int:
    """The same, when no request is under way whose connection is about to be closed."""
    seen = [-1, -2]

    def is_the_same() -> bool:
        seen.append(descriptors(site))
        return seen[-1] == seen[-2] == seen[-3]

    Deadline(5).until(is_the_same, every=0.03)
    return seen[-1]


def seconds_until(condition: Callable[[], object], at_most: float, what: str) -> float:
    start = time.monotonic()
    Deadline(at_most).until(condition, what)
    return time.monotonic() - start


def warmed(site: Site) -> Site:
    """It has served a stream before: its threads run, its connections to Redis are made."""
    idle = settled(site)
    with contextlib.closing(guest(site, "before the test")):
        Deadline(5).until(lambda: descriptors(site) > idle)
    before = site.streams.send_event("before the test", "x")
    client.post(site.server.stream_url("send", "before the test"), content="y").raise_for_status()
    with contextlib.closing(guest(site, "before the test", last_event_id=before)):
        pass
    return site


def assert_calm(site: Site) -> None:
    """Neither gunicorn nor the error tracker around the app has seen anything strange."""
    strange = re.compile("takes a thread|Traceback|Error|Exception|CRITICAL|tracked")
    lines = site.server.output.splitlines()
    found = [number for number, line in enumerate(lines) if strange.search(line)]
    assert not found, "\n".join(lines[found[0] - 5 : found[0] + 40])


@pytest.fixture(scope="module")
def taking_sites(shared_servers: SharedServers) -> Iterator[Callable[[str], Site]]:
    sites: dict[str, Site] = {}
    verbose = ["--log-level", "debug", "--access-logfile", "-"]

    def site(kind: str) -> Site:
        if kind not in sites:
            url, prefix = shared_servers.url("valkey"), f"t-{uuid.uuid4().hex[:12]}"
            env = environment(url, prefix=prefix, **QUIET)
            server = WebServer(KINDS[kind], APP, env=env, arguments=verbose).start()
            sites[kind] = warmed(Site(server, url, prefix))
        return sites[kind]

    yield site
    for each in sites.values():
        each.close()


@pytest.fixture(params=list(WSGI_KINDS))
def site(request: pytest.FixtureRequest, taking_sites: Callable[[str], Site]) -> Iterator[Site]:
    """One worker of each kind, which says all that it can."""
    site = taking_sites(request.param)
    yield site
    site.leave()
    assert_calm(site)


@pytest.fixture
def throng() -> Iterator[Callable[[Site, str], Throng]]:
    """Makes crowds, which leave after the test."""
    with contextlib.ExitStack() as stack:

        def build(site: Site, stream_id: str) -> Throng:
            made = Throng(site.server.stream_url("events", stream_id))
            return stack.enter_context(contextlib.closing(made))

        yield build


@pytest.fixture
def told() -> Iterator[Callable[..., RudeClient]]:
    """Makes clients that have been told that the stream is open, and closes them after the test."""
    with contextlib.ExitStack() as stack:

        def build(site: Site, stream_id: str, path: str = "events", **options: Any) -> RudeClient:
            return stack.enter_context(contextlib.closing(guest(site, stream_id, path, **options)))

        yield build


NewThrong = Callable[[Site, str], Throng]
Told = Callable[..., RudeClient]
NewSite = Callable[..., Site]


# -- many streams, and a worker that is free ------------------------------------------------------


def test_streams_take_no_thread_and_pages_are_answered(site: Site, room: str, throng: NewThrong):
    before, idle = site.server.get_json("/worker"), settled(site)
    crowd = throng(site, room).grow(300)

    during = site.server.get_json("/worker")
    Deadline(5).until(lambda: settled(site) == idle + 300, "one descriptor a stream")
    start = time.monotonic()
    for _ in range(20):
        assert client.get(f"{site.server.url}/ping", timeout=2).text == "pong"
    answered_in = (time.monotonic() - start) / 20
    event_id = site.streams.send_event(room, "to all")

    crowd.read_until(f"data: to all\nid: {event_id}\n\n".encode(), 5)
    # gthread starts the threads of its pool one by one, and these are all that it has.
    assert during["threads"] <= before["threads"] + GTHREAD_THREADS
    # A greenlet or two for the request that asks.
    assert during["greenlets"] < before["greenlets"] + 5
    assert during["responses"] < 20, "they are most of what a client would cost"
    assert answered_in < 0.1


def test_one_sync_worker_holds_ten_thousand_streams(
    new_site: NewSite, room: str, throng: NewThrong
):
    # A descriptor a stream, and some: as many streams as the machine allows one process, at most.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 10_500 if limits[1] == resource.RLIM_INFINITY else min(10_500, limits[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, limits[0]), limits[1]))
    try:
        site = new_site("gunicorn-sync", app=APP, **{**QUIET, "keep_alive_interval": 60})
        with contextlib.closing(throng(site, room)) as crowd:
            waits = []
            for _ in range(10):
                crowd.grow((most - 500) // 10)
                start = time.monotonic()
                assert client.get(f"{site.server.url}/ping", timeout=5).text == "pong"
                waits.append(time.monotonic() - start)

            site.streams.send_event(room, "to all")

            crowd.read_until(b"data: to all\n", 10)
            assert descriptors(site) > len(crowd.clients) == (most - 500) // 10 * 10
            assert max(waits) < 0.5
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# -- what a response carries ----------------------------------------------------------------------


def test_all_that_the_app_put_on_its_response_is_on_the_wire(told: Told, site: Site, room: str):
    head = told(site, room, "decorated").received.partition(b"\r\n\r\n")[0].decode()

    status, *lines = head.split("\r\n")
    fields = sorted(line.partition(":")[0].lower() for line in lines)
    assert status == "HTTP/1.1 200 OK"
    assert fields == [
        "access-control-allow-origin",
        "cache-control",
        "connection",
        "content-type",
        "date",
        "set-cookie",
        "set-cookie",
        "transfer-encoding",
        "x-accel-buffering",
        "x-after-request",
        "x-late",
        "x-ours",
    ]
    assert "Connection: close" in lines
    assert "Access-Control-Allow-Origin: https://example.org" in lines
    assert {"x-ours: 1", "X-Late: 2", "X-After-Request: ran"} <= set(lines)
    assert {line.partition(";")[0] for line in lines if line.startswith("Set-Cookie")} == {
        "Set-Cookie: seen=yes",
        "Set-Cookie: second=cookie",
    }


@pytest.mark.parametrize("way", ["ends", "is left"])
def test_call_on_close_runs_once_when_the_stream(told: Told, site: Site, room: str, way: str):
    def count() -> int:
        return int(site.server.get_json("/worker")["closed"].count(room))

    a_client = told(site, room, "decorated")
    assert count() == 0

    if way == "ends":
        site.streams.end_stream(room)
        assert b"event: stream-end\n" in read_to_the_end(a_client)
    a_client.close()

    Deadline(2).until(lambda: count() == 1, "it ran")
    Deadline(0.3).stays(lambda: count() == 1, "and only once")


@pytest.mark.parametrize("way", ["leave", "are cut by SIGTERM"])
@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_the_close_hooks_of_a_crowd_all_run(redis_url: str, prefix: str, kind: str, way: str):
    """Each waits a moment, as for a database."""
    env = environment(redis_url, prefix=prefix, **{**QUIET, "keep_alive_interval": 60})
    server = WebServer(KINDS[kind], APP, env=env).start()
    with contextlib.closing(warmed(Site(server, redis_url, prefix))) as site:
        with contextlib.closing(Throng(site.server.stream_url("slowly-closed", "room"))) as crowd:
            crowd.grow(100)
            if way != "leave":
                site.server.terminate(within=10)

        def closed() -> int:
            return site.server.output.count("closed slowly")

        Deadline(5).until(lambda: closed() == 100, closed)


def test_the_access_log_has_one_line_a_stream(told: Told, site: Site, room: str):
    room = room.replace(" ", "-")

    def lines() -> list[str]:
        return re.findall(rf'"GET /events/{room}\?? HTTP/1.1" (\d+)', site.server.output)

    a_client = told(site, room)
    Deadline(2).until(lines, "written when the worker is free")
    site.streams.end_stream(room)
    read_to_the_end(a_client)
    client.get(f"{site.server.url}/ping")

    assert lines() == ["200"]


def test_middlewares_see_an_ordinary_response_that_is_over(told: Told, site: Site, room: str):
    room = room.replace(" ", "-")
    with contextlib.closing(told(site, room)):
        Deadline(2).until(
            lambda: client.get(f"{site.server.url}/seen?path=/events/{room}").json()[0]["closed"],
            "closed while the stream is open",
        )
        [seen] = client.get(f"{site.server.url}/seen?path=/events/{room}").json()

    assert (seen["status"], seen["bytes"], seen["ended"], seen["closed"]) == ("200 OK", 0, 1, 1)
    assert ["content-length", "0"] in seen["headers"]


# -- clients that don't read ----------------------------------------------------------------------


def test_a_socket_without_room_delays_nobody_and_is_let_go_at_the_bound(
    told: Told, site: Site, room: str
):
    stuck = told(site, room, receive_buffer=4096)
    quick = [site.browser(room).wait_open() for _ in range(3)]
    before = settled(site)
    data = "x" * 200_000
    waits = []

    for n in range(40):
        start = time.monotonic()
        site.streams.send_event(room, f"{n} {data}")
        for each in quick:
            each.wait_for(n + 1)
        waits.append(time.monotonic() - start)

    assert max(waits) < 0.5
    assert [each.connects for each in quick] == [1, 1, 1]
    Deadline(1).until(lambda: descriptors(site) == before - 1, "the stuck one is let go")
    with pytest.raises(ConnectionResetError):
        read_to_the_end(stuck)
    assert stuck.received.count(b"data: ") < 40


@pytest.fixture(scope="module")
def patient_sites(shared_servers: SharedServers) -> Iterator[Callable[[str], Site]]:
    """With a backlog that a test doesn't fill, and a short time for a write."""
    patient = {**QUIET, "write_timeout": 1.5, "max_backlog": 10_000, "max_backlog_bytes": 1 << 28}
    with contextlib.ExitStack() as stack:
        sites: dict[str, Site] = {}

        def site(kind: str) -> Site:
            if kind not in sites:
                url, prefix = shared_servers.url("valkey"), f"t-{uuid.uuid4().hex[:12]}"
                env = environment(url, prefix=prefix, **patient)
                started = Site(WebServer(KINDS[kind], APP, env=env).start(), url, prefix)
                sites[kind] = stack.enter_context(contextlib.closing(started))
                warmed(started)
            return sites[kind]

        yield site


@pytest.fixture(params=list(WSGI_KINDS))
def patient_site(
    request: pytest.FixtureRequest, patient_sites: Callable[[str], Site]
) -> Iterator[Site]:
    site = patient_sites(request.param)
    yield site
    assert_calm(site)


def test_a_client_that_reads_slowly_gets_all_in_order(told: Told, patient_site: Site, room: str):
    """More than a socket's buffers hold, read in small pieces while it is sent."""
    site = patient_site
    slow = told(site, room, receive_buffer=16384)
    ids = []

    for n in range(60):
        ids.append(site.streams.send_event(room, f"{n} " + "x" * 100_000))
        slow.received += slow.socket.recv(4096)
    site.streams.end_stream(room)
    while piece := slow.socket.recv(4096):
        slow.received += piece

    body = bytes(slow.received).partition(b"\r\n\r\n")[2]
    messages = [event for event in events_of(body) if event.type == "message"]
    assert [event.last_event_id for event in messages] == ids
    assert [event.data for event in messages] == [f"{n} " + "x" * 100_000 for n in range(60)]


def test_a_client_that_stops_reading_is_cut_off_on_a_stream_that_is_quiet_again(
    told: Told, patient_site: Site, room: str
):
    site = patient_site
    idle = settled(site)
    stuck = told(site, room, receive_buffer=4096)
    for _ in range(12):
        site.streams.send_event(room, "x" * 500_000)

    took = seconds_until(lambda: descriptors(site) == idle, 2.5, "it is cut off")

    assert took > 0.75, "not before its time"
    with pytest.raises(ConnectionResetError):
        read_to_the_end(stuck)


# -- clients that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["FIN", "RST"])
def test_a_client_that_leaves_an_idle_stream_is_noticed_at_once(
    site: Site, room: str, throng: NewThrong, way: str
):
    idle = settled(site)
    crowd = throng(site, room).grow(50)
    assert descriptors(site) >= idle + 50

    for each in crowd.clients:
        if way == "RST":
            each.reset()
        each.close()

    Deadline(1).until(lambda: descriptors(site) == idle, "all descriptors are free")


@pytest.mark.parametrize("has_ended", [False, True], ids=["open", "ended"])
@pytest.mark.parametrize("way", ["FIN", "RST"])
def test_a_client_that_leaves_while_its_socket_is_full_costs_nothing_more(
    told: Told, site: Site, room: str, way: str, has_ended: bool
):
    def send(data: str) -> None:
        site.streams.send_event(room, data)
        site.wait_written()

    idle = settled(site)
    stuck = told(site, room, receive_buffer=4096).fill(send)
    if has_ended:
        site.streams.end_stream(room)
        site.wait_written()
    site.leave()
    assert site.server.connections_to(stuck.port) == 1, "it is not let go before"

    if way == "RST":
        stuck.reset()
    else:
        # Closed with something unread, it would say RST.
        stuck.socket.shutdown(socket.SHUT_WR)

    Deadline(5).until(lambda: descriptors(site) == idle, "its descriptor is free")
    before = cpu_seconds(site)
    Deadline(0.5).stays(lambda: cpu_seconds(site) - before < 0.2, "the worker is idle", every=0.1)


def test_others_go_on_when_one_leaves(told: Told, site: Site, room: str):
    stays = site.browser(room).wait_open()
    leaves = told(site, room)

    leaves.reset()
    ids = [site.streams.send_event(room, str(n)) for n in range(20)]

    assert [e.last_event_id for e in stays.wait_for(20).messages] == ids
    assert stays.connects == 1


# -- where it can't be ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """gunicorn's arguments for TLS in the worker, with a certificate of our own."""
    made = Certificate.made_in(tmp_path_factory.mktemp("certificate"), "localhost")
    return ["--certfile", made.certificate, "--keyfile", made.key]


def dev_servers() -> Iterator[ServerKind]:
    up = KINDS["gunicorn-sync"].is_up
    flask = ["flask", "--app", "{app}", "run", "--port", "{port}"]
    yield ServerKind("flask run", flask, is_asgi=False, is_up=up)
    if importlib.util.find_spec("waitress"):
        waitress = ["waitress", "--listen", "127.0.0.1:{port}", "{app}"]
        yield ServerKind("waitress", waitress, is_asgi=False, is_up=up)


def assert_generators_serve(site: Site, reason: str) -> None:
    room = uuid.uuid4().hex
    with contextlib.ExitStack() as stack:
        url = site.server.stream_url("events", room)
        answers = [stack.enter_context(client.stream("GET", url)) for _ in range(2)]
        lines = [answer.iter_lines() for answer in answers]
        for each in lines:
            assert "event: stream-open" in each
        site.streams.send_event(room, "x")
        site.streams.end_stream(room)

        assert [[line for line in each if line == "data: x"] for each in lines] == [["data: x"]] * 2

    told_of = re.findall(r"^(.* each stream takes a thread: .*)$", site.server.output, re.M)
    assert told_of == [f"streamy_redis.listener INFO each stream takes a thread: {reason}"]


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-gevent"])
def test_tls_in_the_worker_is_served_by_the_generator(
    redis_url: str, prefix: str, certificate: list[str], kind: str
):
    env = environment(redis_url, prefix=prefix, **QUIET)
    server = WebServer(KINDS[kind], APP, env=env, arguments=certificate)
    server.url = f"https://127.0.0.1:{server.port}"
    with contextlib.closing(Site(server.start(), redis_url, prefix)) as site:
        assert_generators_serve(site, "the socket speaks TLS")


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-gevent"])
def test_handover_can_be_turned_off(new_site: NewSite, kind: str):
    site = new_site(kind, app=APP, handover=False)

    assert_generators_serve(site, "handover is turned off")


@pytest.mark.parametrize("kind", [*dev_servers()], ids=str)
def test_another_server_is_served_by_the_generator(redis_url: str, prefix: str, kind: ServerKind):
    env = environment(redis_url, prefix=prefix, **QUIET)
    with contextlib.closing(Site(WebServer(kind, APP, env=env).start(), redis_url, prefix)) as site:
        assert_generators_serve(site, "the server shows no socket")


# -- HTTP -----------------------------------------------------------------------------------------


def test_a_connection_is_kept_until_a_stream_takes_it(site: Site, room: str):
    last = site.streams.send_event(room, "x")
    ended = f"{room} ended"
    site.streams.end_stream(ended)
    cursor = {"Last-Event-ID": site.streams.info(ended).last_event_id or ""}
    stream, over = (site.server.stream_url("events", each) for each in (room, ended))
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=5)
    ports = set()

    def ask(method: str, path: str, headers: dict[str, str] | None = None) -> Any:
        connection.request(method, path.removeprefix(site.server.url), headers=headers or {})
        ports.add(connection.sock.getsockname()[1])
        return connection.getresponse()

    with contextlib.closing(connection):
        answers = [
            ask("GET", "/ping").read(),
            ask("HEAD", stream).read(),
            ask("GET", over, cursor).read(),
            ask("GET", "/events/").read()[:9],
            ask("GET", "/ping").read(),
        ]
        taken = ask("GET", stream, {"Last-Event-ID": "none"})
        body = taken.fp.read1(65536)

    assert answers == [b"pong", b"", b"", b"stream_id", b"pong"]
    assert (taken.status, taken.getheader("connection")) == (200, "close")
    assert taken.getheader("content-length") is None
    assert taken.getheader("transfer-encoding") == "chunked"
    assert f"id: {last}\n".encode() in body
    # A sync worker keeps no connection.
    assert len(ports) == (6 if site.kind.name == "gunicorn-sync" else 1)


def test_an_http_1_0_client_is_served_until_the_end(site: Site, room: str):
    path = site.server.stream_url("events", room).removeprefix(site.server.url)
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=5) as old:
        old.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        body = old.makefile("rb")
        while body.readline() != b"event: stream-open\n":
            pass
        event_id = site.streams.send_event(room, "x")
        site.streams.end_stream(room)

        assert f"data: x\nid: {event_id}\n\n".encode() in body.read()


# -- the bounds of all streams --------------------------------------------------------------------


def test_too_many_streams_are_refused_and_one_that_is_left_makes_room(
    new_site: NewSite, room: str, throng: NewThrong
):
    site = new_site("gunicorn-sync", app=APP, **{**QUIET, "max_subscribers": 30})
    url = site.server.stream_url("events", room)
    crowd = throng(site, room).grow(30)

    refused = client.get(url)
    assert (refused.status_code, refused.content) == (503, b"")
    assert int(refused.headers["retry-after"]) >= 1
    site.streams.send_event(room, "x")
    crowd.read_until(b"data: x\n", 5)

    crowd.clients.pop().close()

    def is_let_in() -> bool:
        with client.stream("GET", url) as answer:
            return answer.status_code == 200

    Deadline(1).until(is_let_in, "there is room at once")


def test_max_lifetime_ends_streams_that_take_no_thread(new_site: NewSite, room: str):
    site = new_site("gunicorn-sync", app=APP, **{**QUIET, "max_lifetime": 0.6})
    sent = SentLog()
    browsers = [site.browser(room).wait_open() for _ in range(3)]

    while min(each.opens for each in browsers) < 3 and len(sent) < 1000:
        sent.returned(site.streams.send_event(room, str(len(sent))), str(len(sent)))
        Deadline(0.01).stays(lambda: True)

    for each in browsers:
        each.wait_for(len(sent))
        assert "clean" not in each.ends
        Delivery(sent, each.events).assert_exactly_once()


# -- forks ----------------------------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """What the forked child waits for."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def fork(site: Site, stream_id: str, pipe: Path) -> int:
    url = site.server.stream_url("fork", stream_id, pipe=str(pipe))
    return int(client.get(url).raise_for_status().json()["pid"])


def end_fork(site: Site, child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pytest.fail(f"the child ended by itself: {site.server.output[-3000:]}")


def test_an_end_comes_at_once_although_a_forked_child_has_a_copy(
    told: Told, site: Site, room: str, pipe: Path
):
    ends, leaves = told(site, f"{room} ends"), told(site, f"{room} leaves")
    stays = site.browser(room).wait_open()
    idle = settled(site)
    child = fork(site, room, pipe)
    try:
        site.streams.end_stream(f"{room} ends")
        ends.socket.settimeout(1)
        assert b"event: stream-end\n" in read_to_the_end(ends)
        leaves.close()
        Deadline(1).until(lambda: descriptors(site) == idle - 2, "who leaves is noticed")

        # The child makes a manager's connections of its own and closes the copies.
        pipe.write_text("go on")

        stays.wait_for(2)
        assert stays.data == ["of the child", "the child heard what is of the child"]
        site.streams.send_event(room, "x")
        assert stays.wait_for(3).connects == 1
        stays.close()
        Deadline(1).until(lambda: descriptors(site) == idle - 3, "and still is")
    finally:
        end_fork(site, child)


def test_a_forked_child_that_does_something_else_takes_nothing(told: Told, site: Site, room: str):
    """Under gevent it has all greenlets of its parent, which run whenever it waits."""
    stays, slow = site.browser(room).wait_open(), told(site, room, receive_buffer=4096)
    idle = settled(site)
    child = fork(site, room, Path("none"))
    try:
        for n in range(50):
            site.streams.send_event(room, f"{n} " + "x" * 20_000)
            Deadline(0.02).stays(lambda: True)

        assert [data.split()[0] for data in stays.wait_for(50).data] == [str(n) for n in range(50)]
        assert stays.connects == 1
        stays.close()
        slow.close()
        Deadline(1).until(lambda: descriptors(site) == idle - 2, "who leaves is noticed")
    finally:
        end_fork(site, child)


def test_a_forked_child_takes_nothing_of_streams_that_take_a_greenlet(new_site: NewSite, room: str):
    site = new_site("gunicorn-gevent", app=APP, handover=False, position_check_interval=0.2)
    stays = site.browser(room).wait_open()
    child = fork(site, room, Path("none"))
    try:
        for n in range(50):
            site.streams.send_event(room, str(n))
            Deadline(0.02).stays(lambda: True)

        assert stays.wait_for(50).data == [str(n) for n in range(50)]
        assert stays.connects == 1
    finally:
        end_fork(site, child)


def test_a_stuck_client_is_cut_off_although_a_forked_child_has_a_copy(
    told: Told, site: Site, room: str, pipe: Path
):
    stuck = told(site, room, receive_buffer=4096)
    with_stuck = settled(site)
    child = fork(site, room, pipe)
    try:
        for _ in range(30):
            site.streams.send_event(room, "x" * 200_000)
        Deadline(1).until(lambda: descriptors(site) < with_stuck, "the worker lets it go")

        stuck.socket.settimeout(1)
        with contextlib.suppress(ConnectionResetError):
            read_to_the_end(stuck)
    finally:
        end_fork(site, child)


# -- stopping -------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_a_stopped_worker_leaves_nothing_unread_behind(
    new_site: NewSite, room: str, throng: NewThrong, kind: str
):
    site = new_site(kind, app=APP, **QUIET)
    crowd = throng(site, room).grow(100)
    first = site.browser(room).wait_open()
    site.streams.send_event(room, "last")
    first.wait_for(1)

    took = site.server.terminate(within=5)

    assert took < site.kind.stops_within, site.server.output[-2000:]
    for each in crowd.clients:
        assert b"data: last\n" in read_to_the_end(each), "and FIN, not RST"
    assert first.wait_for(lambda b: b.ends, 2).ends[0] != "clean"
    assert_calm(site)


@pytest.mark.parametrize("kind", ["gunicorn-sync", "gunicorn-gevent"])
def test_clients_lose_nothing_when_workers_are_replaced(new_site: NewSite, room: str, kind: str):
    site = new_site(kind, workers=2, app=APP, **QUIET)
    sent = SentLog()
    browsers = [site.browser(room).wait_open() for _ in range(8)]
    before = {worker.pid for worker in site.server.workers()}
    site.server.child.signal(signal.SIGHUP)

    def all_came_back() -> bool:
        sent.returned(site.streams.send_event(room, str(len(sent))), str(len(sent)))
        return all(each.opens >= 2 for each in browsers)

    Deadline(10).until(all_came_back, lambda: site.server.output[-3000:])
    Deadline(5).until(lambda: not before & {w.pid for w in site.server.workers()})

    for each in browsers:
        each.wait_for(len(sent), 10)
        assert each.ends[0] != "clean"
        Delivery(sent, each.events).assert_exactly_once()


def test_a_sync_worker_that_has_served_its_requests_loses_nothing(new_site: NewSite, room: str):
    site = new_site("gunicorn-sync", app=APP, arguments=["--max-requests", "12"], **QUIET)
    sent = SentLog()
    browsers = [site.browser(room).wait_open() for _ in range(4)]

    def all_came_back() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            client.get(f"{site.server.url}/ping", timeout=2)
        sent.returned(site.streams.send_event(room, str(len(sent))), str(len(sent)))
        return all(each.opens >= 2 for each in browsers)

    Deadline(15).until(all_came_back, lambda: site.server.output[-3000:], every=0.02)

    for each in browsers:
        each.wait_for(len(sent), 10)
        assert each.ends[0] != "clean"
        Delivery(sent, each.events).assert_exactly_once()


# -- the oldest gunicorn; everything else runs on the newest --------------------------------------


def oldest_version() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    demo = project["optional-dependencies"]["demo"]
    return next(each for each in demo if each.startswith("gunicorn")).partition(">=")[2]


@pytest.fixture(scope="module")
def oldest_gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put in front of the installed packages."""
    folder = tmp_path_factory.mktemp("gunicorn")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = f"gunicorn=={oldest_version()}"
    subprocess.run([*pip, "--no-deps", "--target", str(folder), wanted], check=True, timeout=120)
    return folder


@pytest.mark.parametrize("kind", WSGI_KINDS)
def test_the_oldest_gunicorn_is_taken_over_too(
    oldest_gunicorn: Path, redis_url: str, prefix: str, room: str, throng: NewThrong, kind: str
):
    options = [each for each in KINDS[kind].arguments if each != "--no-control-socket"]
    oldest = dataclasses.replace(KINDS[kind], arguments=options)
    path = f"{oldest_gunicorn}{os.pathsep}{ROOT}"
    env = {**environment(redis_url, prefix=prefix, **QUIET), "PYTHONPATH": path}
    server = WebServer(oldest, APP, env=env, arguments=["--access-logfile", "-"]).start()
    with contextlib.closing(warmed(Site(server, redis_url, prefix))) as site:
        assert f"Starting gunicorn {oldest_version()}" in site.server.output
        before, idle = site.server.get_json("/worker"), settled(site)
        crowd = throng(site, room).grow(60)
        browser = site.browser(room).wait_open()
        site.streams.send_event(room, "x")
        crowd.read_until(b"data: x\n", 5)
        assert site.server.get_json("/worker")["threads"] <= before["threads"] + GTHREAD_THREADS

        for each in crowd.clients:
            each.close()
        Deadline(1).until(lambda: descriptors(site) == idle + 1, "they have left")

        site.streams.end_stream(room)
        assert browser.wait_closed().statuses == [200, 204]
        assert browser.ends == ["clean"]
        # Its gthread looks at its own flag once a second.
        assert site.server.terminate(within=5) < 2
        assert_calm(site)
