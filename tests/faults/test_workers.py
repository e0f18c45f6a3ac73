"""Workers that are killed, recycled and reloaded while events flow, and workers made by a fork."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.exactly_once import Delivery
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment

from .naive import ForgetfulBrowser
from .senders import Sender

WORKERS = 2
# Its workers don't take turns: with two, requests may never reach the one that has the streams.
ALONE = ("gunicorn-asgi",)
# What makes a worker end after so many requests, and a reload.
RECYCLING = {
    "gunicorn-gthread": ["--max-requests", "25"],
    "gunicorn-gevent": ["--max-requests", "25"],
    "gunicorn-asgi": ["--max-requests", "25"],
    "gunicorn-uvicorn": ["--max-requests", "25"],
    "uvicorn": ["--limit-max-requests", "25"],
}
GROUPS = [
    ("gunicorn-gthread", "gunicorn-gevent"),
    ("gunicorn-asgi",),
    ("gunicorn-uvicorn", "uvicorn"),
]


@pytest.fixture
def served(shared_servers: SharedServers, prefix: str) -> Iterator[Callable[..., Site]]:
    """Sites whose server has more arguments."""
    sites: list[Site] = []

    def build(kind_name: str, *more: str, app: str | None = None, is_up: str | None = None) -> Site:
        kind = KINDS[kind_name]
        kind = dataclasses.replace(
            kind,
            arguments=[*kind.arguments[:-1], *more, "{app}"],
            is_up=is_up or kind.is_up,
        )
        url = shared_servers.url("valkey")
        server = WebServer(
            kind,
            app or app_for(kind),
            workers=1 if kind_name in ALONE else WORKERS,
            env=environment(url, prefix=prefix, **CONFIG),
        ).start()
        sites.append(Site(server, url, prefix))
        return sites[-1]

    yield build
    for site in sites:
        site.close()


def pids(site: Site) -> set[int]:
    return {worker.pid for worker in site.server.workers()}


def all_new(site: Site, before: set[int]) -> None:
    """Other workers serve: as many as there were, and none of the old ones."""
    Deadline(15).until(
        lambda: not before & pids(site) and is_steady(site),
        lambda: f"{before} became {pids(site)}\n{site.server.output[-2000:]}",
        every=0.05,
    )


def is_steady(site: Site) -> bool:
    """Each worker that was started is up: signals get lost in one that is booting."""
    output = site.server.output
    booted = output.count("Booting worker") or output.count("Started server process")
    return len(pids(site)) >= site.server.worker_count and output.count(site.kind.is_up) >= booted


def ask_until_recycled(site: Site) -> None:
    """Requests until a worker has had its fill; the kernel decides which."""
    before = pids(site)

    def is_recycled() -> bool:
        try:
            httpx.get(f"{site.server.url}/ping", timeout=5)
        except httpx.HTTPError:
            pass  # a worker that is going may drop what it has not answered
        return not before <= pids(site)

    Deadline(10).until(is_recycled, lambda: site.server.output[-2000:], every=0.001)
    Deadline(15).until(lambda: is_steady(site), lambda: site.server.output[-2000:], every=0.05)


@pytest.mark.parametrize("kinds", GROUPS, ids=" and ".join)
def test_recycled_reloaded_and_killed(
    served: Callable[..., Site], room: str, prefix: str, kinds: tuple[str, ...]
):
    """Side by side, since most of it is waiting for servers to start."""
    sites = [served(kind, *RECYCLING[kind]) for kind in kinds]
    with ThreadPoolExecutor(len(sites)) as side_by_side:
        done = [side_by_side.submit(survive, site, f"{room} {site.kind}", prefix) for site in sites]
    for site, each in zip(sites, done, strict=True):
        try:
            each.result()
        except AssertionError as error:
            error.add_note(f"on {site.kind}")
            raise


def survive(site: Site, room: str, prefix: str) -> None:
    """All that happens to workers, while events flow."""
    browsers = [site.browser(room).wait_open() for _ in range(4)]
    naive = ForgetfulBrowser(site.server.stream_url("events", room)).wait_open()
    sender = Sender(site.redis_url, prefix, room, rate=50)
    try:
        for browser in browsers:
            browser.wait_for(10)
        ask_until_recycled(site)

        before = pids(site)
        site.server.child.signal(signal.SIGHUP)
        all_new(site, before)

        before = pids(site)
        for pid in sorted(before):
            os.kill(pid, signal.SIGKILL)
            seen = len(sender.sent)
            Deadline(5).until(lambda seen=seen: len(sender.sent) > seen + 20)
        all_new(site, before)

        for browser in browsers:
            browser.wait_for(len(browser.messages) + 20, 10)
    finally:
        sent = sender.stop()
        naive.close()
    assert Delivery(sent, naive.events).missing, "the checker has no teeth"
    for browser in browsers:
        browser.wait_for(lambda b: b.messages[-1].last_event_id == sent.ids[-1], 10)
        Delivery(sent, browser.events).assert_exactly_once()
    assert all(browser.statuses == [200] * browser.opens for browser in browsers), "never 5xx"
    # Those that the reload sent away were sent away cleanly.
    assert all("clean" in browser.ends for browser in browsers), [b.ends for b in browsers]


@pytest.mark.parametrize(
    ("kind", "app"),
    [
        ("gunicorn-gthread", "tests.faults.preloaded:app"),
        ("gunicorn-gevent", "tests.faults.preloaded:app"),
        ("gunicorn-asgi", "tests.faults.preloaded_asgi:app"),
    ],
)
def test_a_send_before_the_fork(served: Callable[..., Site], room: str, kind: str, app: str):
    """Each worker has its own connections and threads; no reply is mixed up."""
    site = served(kind, "--preload", app=app, is_up="Booting worker")
    browsers = [site.browser(room).wait_open() for _ in range(6)]

    ids = [
        httpx.post(site.server.stream_url("send", room), content=str(n), timeout=10).json()["id"]
        for n in range(40)
    ]

    for browser in browsers:
        browser.wait_for(40)
        assert [e.last_event_id for e in browser.messages] == ids
        assert browser.data == [str(n) for n in range(40)]
    at_import = site.streams.info("at import")
    assert at_import.length == 1


def test_killed_between_an_end_and_its_delivery(served: Callable[..., Site], room: str):
    """Stopped before the end was sent, so that nobody can have been told."""
    site = served("gunicorn-gthread")
    browsers = [site.browser(room).wait_open() for _ in range(4)]
    ids = site.streams.send_events(room, ["a", "b"])
    for browser in browsers:
        browser.wait_for(2)
    before = pids(site)
    for pid in before:
        os.kill(pid, signal.SIGSTOP)
        Deadline(5).until(lambda pid=pid: is_stopped(pid))
    ids.append(site.streams.send_event(room, "c"))
    assert site.streams.end_stream(room, "bye") is True
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    for browser in browsers:
        browser.wait_closed(15)
        assert [e.last_event_id for e in browser.messages] == ids
        assert [e.data for e in browser.of_type("stream-end")] == ["bye"]
        assert browser.statuses == [200, 200, 204]
        assert not browser.of_type("stream-reset")


def is_stopped(pid: int) -> bool:
    """Whether every thread has taken notice of SIGSTOP."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


PATCHED_LATE = """
import sys
from streamy_redis import StreamConfig, StreamManager
from gevent import monkey
monkey.patch_all()
import gevent.event
url, prefix = sys.argv[1:]
received = []
with StreamManager(url, config=StreamConfig(prefix=prefix)) as streams:
    def read():
        with streams.subscribe("room") as events:
            ready.set()
            for event, _ in zip(events, range(3)):
                received.append(event.id)
    ready = gevent.event.Event()
    reader = gevent.spawn(read)
    ready.wait(10)
    sent = [streams.send_event("room", str(n)) for n in range(4)]
    # The loop turns while somebody waits for Redis.
    reader.join(10)
    assert received == sent[:3], (received, sent)
print("works")
"""


def test_gevent_that_patches_after_the_import(redis_url: str, prefix: str):
    """It works, or it says at once what is wrong."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PATCHED_LATE, redis_url, prefix],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert done.stdout == "works\n", done.stderr[-3000:]
