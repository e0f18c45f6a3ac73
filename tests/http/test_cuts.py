"""Only the end of a stream ends a response as one that is complete; all else breaks it off.

EventSource comes back either way. Other clients take a response that ends with its last chunk for
all there is, so that chunk must not come before the end, on any server, for whatever reason.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from tests.browser import EventSource
from tests.http.conftest import WITHOUT_HANDOVER
from tests.nginx import in_front_of
from tests.sites import Site
from tests.web_servers import ASGI_KINDS, KINDS

pytestmark = pytest.mark.alone

WITH_A_THREAD = [f"gunicorn-{worker}{WITHOUT_HANDOVER}" for worker in ("sync", "gthread", "gevent")]
ALL = [*KINDS, *WITH_A_THREAD]
# Nobody comes back before the test has looked, and nothing else ends a response.
PATIENT = {"retry_interval": (20, 20), "write_timeout": 60.0}


@pytest.fixture(params=ALL)
def new_one(request: pytest.FixtureRequest, new_site: Callable[..., Site]) -> Callable[..., Site]:
    """Each kind of server, with and without handover."""
    kind = request.param.removesuffix(WITHOUT_HANDOVER)

    def new(**config: object) -> Site:
        return new_site(kind, handover=kind == request.param, **{**PATIENT, **config})

    return new


def end_of(browser: EventSource) -> str:
    """How its first response ended."""
    return browser.wait_for(lambda b: b.ends, 8, "the response has ended").ends[0]


def assert_is_cut(browser: EventSource) -> None:
    assert end_of(browser).startswith(("incomplete", "lost"))


@contextlib.contextmanager
def asked_by_http_1_0(site: Site, stream_id: str) -> Iterator[socket.socket]:
    """A client that knows no chunks: the body ends with the connection."""
    path = urlsplit(site.server.stream_url("events", stream_id)).path
    with socket.create_connection(("127.0.0.1", site.server.port), 8) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        yield client


def is_reset(client: socket.socket) -> bool:
    """Whether its connection is lost, as opposed to closed, behind what comes."""
    try:
        while client.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def assert_is_quiet(site: Site) -> None:
    """No client costs a traceback or an error in the server's log."""
    output = site.server.output
    assert "Traceback" not in output, output[-3000:]
    assert "ERROR" not in output, output[-3000:]


def test_the_end_is_complete_and_a_stopped_server_cuts(new_one: Callable[..., Site], room: str):
    site = new_one()
    ended = site.browser(f"{room} ended").wait_open()
    site.streams.end_stream(f"{room} ended")
    assert end_of(ended) == "clean"
    assert ended.events[-1].type == "stream-end"

    with asked_by_http_1_0(site, f"{room} ended") as old:
        assert not is_reset(old)

    running = site.browser(room).wait_open()
    site.streams.send_event(room, "last")
    running.wait_for(1)
    site.server.terminate(within=site.kind.stops_within + 5)

    assert_is_cut(running)
    assert_is_quiet(site)


def test_the_end_of_its_age_cuts(new_one: Callable[..., Site], room: str):
    site = new_one(max_lifetime=1.0)

    with asked_by_http_1_0(site, room) as old:
        assert_is_cut(site.browser(room).wait_open())
        assert is_reset(old)

    assert_is_quiet(site)


def test_a_client_that_is_too_slow_is_cut(new_one: Callable[..., Site], room: str):
    site = new_one(max_backlog_bytes=200_000)
    slow = site.browser(room, receive_buffer=4096).wait_open()
    slow.pause()

    for _ in range(15):
        site.streams.send_event(room, "x" * 1_000_000)
    slow.go_on()

    assert_is_cut(slow)
    assert_is_quiet(site)


@pytest.mark.parametrize("kind", ASGI_KINDS)
def test_a_middleware_that_completes_what_it_is_given_does_not(
    new_site: Callable[..., Site], room: str, kind: str
):
    """BaseHTTPMiddleware sends the last chunk for an endpoint that returns or raises."""
    site = new_site(kind, app="tests.apps.wrapped_app:app", max_lifetime=1.0, **PATIENT)
    site.streams.end_stream(f"{room} ended")
    ended = site.browser(f"{room} ended")

    assert_is_cut(site.browser(room).wait_open())
    assert end_of(ended) == "clean"
    assert_is_quiet(site)


@pytest.mark.parametrize("kind", ["granian", "hypercorn"])
def test_nor_does_it_where_the_connection_is_hidden(
    new_site: Callable[..., Site], room: str, kind: str
):
    """Nothing leads to granian's connections but the port of their clients."""
    site = new_site(kind, app="tests.apps.wrapped_app:hidden", max_lifetime=1.0, **PATIENT)
    site.streams.end_stream(f"{room} ended")
    ended = site.browser(f"{room} ended")

    assert_is_cut(site.browser(room).wait_open())
    assert end_of(ended) == "clean"


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("1.0", r"recv\(\) failed \(104: Connection reset by peer\) while reading upstream"),
        ("1.1", "upstream prematurely closed connection while reading upstream"),
    ],
)
@pytest.mark.parametrize("kind", ["gunicorn-gthread", "uvicorn"])
def test_nginx_passes_a_cut_on(new_site: Callable[..., Site], kind: str, version: str, line: str):
    site = new_site(kind, max_lifetime=1.0, **PATIENT)
    site.streams.end_stream("ended")
    with (
        in_front_of(site.server.url, version) as nginx,
        EventSource(f"{nginx.url}/events/ended") as ended,
        EventSource(f"{nginx.url}/events/running") as running,
    ):
        assert end_of(ended) == "clean"
        assert_is_cut(running)
        lines = [line for line in nginx.child.output.splitlines() if "[error]" in line]

    assert len(lines) == 1
    assert re.search(line, lines[0])
