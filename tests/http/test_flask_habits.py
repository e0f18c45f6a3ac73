"""What Flask applications do to their responses, on the servers that serve them."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.faults.rude_clients import RudeClient
from tests.http.test_handover import dev_servers
from tests.servers import RedisServer
from tests.sites import CONFIG, Site
from tests.web_servers import WSGI_KINDS, ServerKind, WebServer, environment
from tests.web_servers import http as client

APP = "tests.apps.flask_habits:app"
LIMIT = 5
SERVERS = {kind.name: kind for kind in (*WSGI_KINDS.values(), *dev_servers())}
TAKING = list(WSGI_KINDS)
# A sync worker does nothing else while a stream takes its thread.
THREADED = [name for name in SERVERS if name != "gunicorn-sync"]


def new_site(kind: ServerKind, url: str, prefix: str) -> Site:
    env = environment(url, prefix=prefix, **CONFIG, max_subscribers=LIMIT)
    return Site(WebServer(kind, APP, env=env).start(), url, prefix)


@pytest.fixture(scope="module")
def sites(shared_servers: SharedServers) -> Iterator[Callable[[str], Site]]:
    with contextlib.ExitStack() as stack:
        made: dict[str, Site] = {}

        def site(name: str) -> Site:
            if name not in made:
                started = new_site(SERVERS[name], shared_servers.url("valkey"), f"habits {name}")
                made[name] = stack.enter_context(contextlib.closing(started))
            return made[name]

        yield site


@pytest.fixture
def site(request: pytest.FixtureRequest, sites: Callable[[str], Site]) -> Iterator[Site]:
    site = sites(request.param)
    yield site
    site.leave()
    assert_none_is_left(site)


def assert_none_is_left(site: Site) -> None:
    def stats() -> Any:
        return site.server.get_json("/stats")

    Deadline(5).until(lambda: stats()["open"] == 0, stats, every=0.05)


def answer(site: Site, path: str, **query: str) -> tuple[str, bytes]:
    """Status line and body of what is no stream."""
    url = f"{site.server.url}{path}?{urllib.parse.urlencode(query)}"
    got = client.get(url, timeout=5)
    return f"{got.status_code} {got.reason_phrase}", got.content


def first_line(site: Site, room: str, query: str) -> bytes:
    """The same of what may be one, whose client leaves then."""
    with contextlib.closing(RudeClient(f"{site.server.stream_url('events', room)}?{query}")) as it:
        return it.read_until(b"\r\n").received


def open_stream(site: Site, room: str, query: str) -> RudeClient:
    url = site.server.stream_url("events", room) + f"?{query}"
    return RudeClient(url).read_until(b"event: stream-open")


@pytest.mark.parametrize("site", list(SERVERS), indirect=True)
def test_the_streams_of_an_application_with_a_class_of_its_own(site: Site, room: str):
    reader = open_stream(site, room, "")
    with contextlib.closing(reader):
        site.streams.send_event(room, "hello")
        reader.read_until(b"data: hello\n")


@pytest.mark.parametrize("habit", ["wrap", "make anew"])
@pytest.mark.parametrize("site", THREADED, indirect=True)
def test_each_event_goes_through_what_a_hook_puts_around(site: Site, room: str, habit: str):
    reader = open_stream(site, room, urllib.parse.urlencode({"habit": habit}))
    with contextlib.closing(reader):
        for n in range(3):
            site.streams.send_event(room, f"hello {n}")
            reader.read_until(f"data: HELLO {n}\n".encode())
    if site.kind.name in TAKING:
        assert "takes a thread: something stands around the body" in site.server.output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A\r\nSet-Cookie: session=stolen; x", "1"),
        ("X-A\nX-B", "1"),
        ("X A", "1"),
        ("X-A:", "1"),
        ("", "1"),
        ("X-\0", "1"),
        ("X-Ü", "1"),
        ("X-A", "a\0b"),
        ("X-A", "a\x1fb"),
        ("X-A", "a\x7fb"),
        ("X-User", "\u0141ukasz"),
    ],
)
@pytest.mark.parametrize("site", TAKING, indirect=True)
def test_a_header_that_the_server_refuses_is_refused(site: Site, room: str, name: str, value: str):
    page = answer(site, "/page", habit="header", name=name, value=value)
    streams = {
        answer(site, f"/events/{room}", habit="header", name=name, value=value)
        for _ in range(LIMIT + 1)
    }

    assert page[0] == "500 Internal Server Error"
    assert streams == {page}


@pytest.mark.parametrize("site", TAKING, indirect=True)
def test_so_is_one_behind_a_middleware_that_starts_late(site: Site, room: str):
    query = urllib.parse.urlencode({"name": "X-A\r\nSet-Cookie: session=stolen; x", "value": "1"})
    url = site.server.stream_url("events", room) + f"?late&{query}"

    with contextlib.closing(RudeClient(url)) as reader:
        assert reader.read_until(b"\r\n\r\n").received.startswith(b"HTTP/1.1 500 ")
        assert b"stolen" not in reader.received


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Connection", "keep-alive"),
        ("Keep-Alive", "timeout=5"),
        ("Transfer-Encoding", "gzip"),
        ("Content-Length", "3"),
        ("Upgrade", "h2c"),
        ("Server", "mine"),
        ("Date", "yesterday"),
        ("TE", "trailers"),
        ("Proxy-Authenticate", "Basic"),
    ],
)
@pytest.mark.parametrize("site", TAKING, indirect=True)
def test_what_only_the_server_says_is_dropped(site: Site, room: str, name: str, value: str):
    query = urllib.parse.urlencode({"habit": "header", "name": name, "value": value})
    with contextlib.closing(open_stream(site, room, query)) as reader:
        head = reader.received.partition(b"\r\n\r\n")[0]

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"{name}: {value}".lower().encode() not in head.lower()
    assert head.lower().count(b"\r\ndate: ") == 1


@pytest.mark.parametrize("site", TAKING, indirect=True)
def test_a_middleware_that_answers_something_else_is_heard(site: Site, room: str):
    for _ in range(LIMIT + 1):
        assert answer(site, f"/events/{room}", habit="instead") == ("200 OK", b"something else")
        assert_none_is_left(site)


def test_nothing_is_left_of_requests_that_a_time_limit_ends(redis_server: RedisServer, room: str):
    kind = SERVERS["gunicorn-gevent"]
    with contextlib.closing(new_site(kind, redis_server.url, "habits")) as site:
        open_stream(site, room, "").close()
        redis_server.hang()
        try:
            answers = [first_line(site, f"{room} {n}", "habit=limit") for n in range(LIMIT + 1)]
        finally:
            redis_server.go_on()

        # Once Redis is known to be away nobody waits for it any more.
        assert answers[0].startswith(b"HTTP/1.1 504 ")
        assert_none_is_left(site)
        open_stream(site, room, "").close()
