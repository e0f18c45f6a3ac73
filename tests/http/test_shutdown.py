"""Deploys: SIGTERM with streams open, on every kind of server."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

import pytest

from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog
from tests.faults.rude_clients import ENOUGH, RudeClient
from tests.sites import Site
from tests.web_servers import KINDS, UVICORN_S_WORKER

pytestmark = pytest.mark.alone


@pytest.mark.parametrize(
    ("kind", "workers", "arguments"),
    [
        *((kind, 2, ()) for kind in KINDS),
        # With one worker these two are a single process, without a master.
        ("uvicorn", 1, ()),
        ("hypercorn", 1, ()),
        # The worker that came before the package uvicorn-worker, as long as uvicorn has it.
        ("gunicorn-uvicorn", 2, UVICORN_S_WORKER),
    ],
)
def test_a_stopped_server_is_gone_in_time_and_its_responses_are_cut(
    new_site: Callable[..., Site], room: str, kind: str, workers: int, arguments: tuple[str, ...]
):
    site = new_site(kind, workers=workers, arguments=arguments)
    # The last of two workers counts.
    assert not arguments or f"Using worker: {arguments[-1]}" in site.server.output
    browsers = [site.browser(f"{room} {n % 2}").wait_open() for n in range(6)]

    start = time.monotonic()
    took = site.server.terminate(within=site.kind.stops_within + 5)

    for browser in browsers:
        browser.wait_for(lambda b: b.ends, 5, "the response has ended")
    assert "clean" not in [browser.ends[0] for browser in browsers]
    assert max(browser.ended_at[0] for browser in browsers) - start - site.server.held_up < 1
    assert took < site.kind.stops_within, site.server.output[-2000:]


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-asgi", "uvicorn"])
def test_an_idle_server_stops_as_before(new_site: Callable[..., Site], room: str, kind: str):
    site = new_site(kind)
    site.browser(room).wait_open()
    site.leave()

    assert site.server.terminate(within=5) < 2


# Nothing else is written, and nobody is cut off before.
QUIET = {"keep_alive_interval": 15.0, "write_timeout": 60.0}
PATIENT_KINDS = ["uvicorn", "gunicorn-asgi", "gunicorn-sync", "gunicorn-gthread"]


@pytest.mark.parametrize("last", ["an event", "the end of the stream"])
@pytest.mark.parametrize("kind", PATIENT_KINDS)
def test_a_stopped_server_waits_for_no_client_that_does_not_read(
    new_site: Callable[..., Site], room: str, kind: str, last: str
):
    """Its socket is full, and what was written last before the signal was this."""
    site = new_site(kind, **QUIET)

    with contextlib.closing(_stuck(site, room)):
        if last == "the end of the stream":
            site.streams.end_stream(room)
            site.wait_written()
        _assert_stops_in_time(site)


@pytest.mark.parametrize("kind", PATIENT_KINDS)
def test_a_stopped_server_waits_for_no_client_at_the_end_of_its_age(
    new_site: Callable[..., Site], room: str, kind: str
):
    # A slow machine needs longer to fill a socket.
    for age in (2.5, 10.0):
        site, born = new_site(kind, max_lifetime=age, **QUIET), time.monotonic()
        with contextlib.closing(_stuck(site, room, enough=0)) as stuck:
            # Ages differ by a fifth.
            if time.monotonic() - born > 0.8 * age:
                continue
            assert stuck.unread > ENOUGH
            # Whoever comes after that ends later.
            Deadline(5).until(lambda born=born, age=age: time.monotonic() - born > 0.2 * age)
            later = site.browser(f"{room} later").wait_open()
            later.wait_for(lambda b: b.ends, 2 * age, "the response has ended")
            _assert_stops_in_time(site)
            return
    raise AssertionError("a socket was not full within 8 s")


def _assert_stops_in_time(site: Site) -> None:
    site.leave()
    took = site.server.terminate(within=site.kind.stops_within + 5)
    assert took < site.kind.stops_within, site.server.output[-2000:]


@pytest.mark.parametrize("middleware", ["BaseHTTPMiddleware", "OpenTelemetry"])
@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn-asgi", "gunicorn-uvicorn", "granian"])
def test_a_stopped_server_is_gone_whatever_wraps_its_requests(
    new_site: Callable[..., Site], room: str, kind: str, middleware: str
):
    """With a client that doesn't read: it has to be cut off, as well as the server to be seen."""
    site = new_site(kind, middleware=middleware, **QUIET)

    with contextlib.closing(_stuck(site, room)):
        _assert_stops_in_time(site)


@pytest.mark.parametrize("middleware", ["", "BaseHTTPMiddleware"])
@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn-asgi", "granian", "hypercorn"])
def test_what_is_cut_off_is_closed_and_counted_whatever_wraps_it(
    new_site: Callable[..., Site], room: str, kind: str, middleware: str
):
    site = new_site(kind, middleware=middleware, write_timeout=1.0)

    # On a slow machine it is cut before its socket is full.
    with contextlib.closing(_stuck(site, room, enough=0)) as stuck:
        # granian takes some itself when the socket is full.
        for _ in range(8 if kind == "granian" else 0):
            site.streams.send_event(room, "x" * 250_000)
        Deadline(5).until(lambda: site.server.connections_to(stuck.port) == 0)

        ended = site.server.get_json("/worker")["ended"]
        # TCP may be the first to give it up, which looks like a client that has left.
        assert ended["timeout"] + ended["overflow"] + ended["disconnect"] == 1, ended


def _stuck(site: Site, room: str, enough: int = ENOUGH) -> RudeClient:
    """A client whose socket is full."""
    client = RudeClient(site.server.stream_url("events", room), receive_buffer=4096)
    client.read_until(b"stream-open")

    def send(data: str) -> None:
        site.streams.send_event(room, data)
        site.wait_written()

    return client.fill(send, enough=enough)


def test_clients_resume_on_the_next_server(new_site: Callable[..., Site], room: str):
    """A rolling deploy behind one address: HUP makes gunicorn replace its workers."""
    site = new_site("gunicorn-gthread", workers=2)
    sent = SentLog()
    browsers = [site.browser(room).wait_open() for _ in range(6)]
    before = {worker.pid for worker in site.server.workers()}

    for n in range(150):
        sent.returned(site.streams.send_event(room, str(n)), str(n))
        if n == 50:
            site.server.child.signal(signal.SIGHUP)
        Deadline(0.01).stays(lambda: True)

    for browser in browsers:
        browser.wait_for(150, 15)
        Delivery(sent, browser.events).assert_exactly_once()
    Deadline(5).until(lambda: not before & {w.pid for w in site.server.workers()})
    assert all(browser.opens >= 2 for browser in browsers)
