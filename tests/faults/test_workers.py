"""Workers that are killed, recycled and reloaded while events flow, and workers made by a fork."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import celery
import httpx
import psutil
import pytest
import redis

from streamy_redis import StreamConfig, StreamManager
from streamy_redis.config import TICK_INTERVAL
from tests.browser import EventSource
from tests.child import Child
from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.event_stream import MessageEvent
from tests.exactly_once import Delivery
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, ROOT, WebServer, environment, http

from .naive import ForgetfulBrowser, assert_mixed_up, stored
from .senders import Sender
from .stage import BYSTANDER_EVENTS, LOG_LINES, assert_quick, has_come_to

T = TypeVar("T")


@dataclass(frozen=True)
class Life:
    """What can happen to a server's workers, and how many clients fit on them.

    Attributes:
        recycling: what makes a worker end after so many requests; () where nothing does.
        more: other arguments.
        is_replaced: whether a killed worker is followed by another.
    """

    recycling: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    is_replaced: bool = True
    workers: int = 2
    clients: int = 4


LIVES = {
    # Each stream takes a worker: one is left that answers requests, and that is recycled.
    "gunicorn-sync": Life(("--max-requests", "25"), workers=4, clients=2),
    # Streams take no thread: one is enough, and there are never more.
    "gunicorn-gthread": Life(("--max-requests", "25"), more=("--threads", "1")),
    "gunicorn-gevent": Life(("--max-requests", "25")),
    # Its workers don't take turns: with two, requests may never reach the one with the streams.
    "gunicorn-asgi": Life(("--max-requests", "25"), workers=1),
    "gunicorn-uvicorn": Life(("--max-requests", "25")),
    "uvicorn": Life(("--limit-max-requests", "25")),
    # It recycles by age (60 s or more) or memory only. It replaces killed workers when asked to.
    "granian": Life(more=("--respawn-failed-workers", "--respawn-interval", "0.1")),
    # It ends altogether when a worker was killed, and cuts off whom it reloads.
    "hypercorn": Life(("--max-requests", "25"), is_replaced=False),
}
assert set(LIVES) == set(KINDS)
# Side by side, since most of it is waiting for servers to start.
GROUPS = [
    ("gunicorn-gthread", "gunicorn-gevent", "granian"),
    ("gunicorn-uvicorn", "uvicorn", "hypercorn"),
    ("gunicorn-sync", "gunicorn-asgi"),
]
assert {kind for group in GROUPS for kind in group} == set(LIVES)


@pytest.fixture
def served(shared_servers: SharedServers, prefix: str) -> Iterator[Callable[..., Site]]:
    """Sites whose server has more arguments."""
    sites: list[Site] = []

    def build(
        kind_name: str,
        *more: str,
        app: str | None = None,
        is_up: str | None = None,
        **config: Any,
    ) -> Site:
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
            workers=LIVES[kind_name].workers,
            env=environment(url, prefix=prefix, **{**CONFIG, **config}),
        ).start()
        sites.append(Site(server, url, prefix))
        return sites[-1]

    yield build
    for site in sites:
        site.close()


class Bystander:
    """A client and a sender of another server, whom what happens to workers doesn't concern."""

    def __init__(self, site: Site) -> None:
        room = f"beside {uuid.uuid4().hex[:8]}"
        self._site = site
        self._browser = site.browser(room).wait_open()
        self._sender = Sender(site.redis_url, site.prefix, room, rate=50, name="beside")

    def assert_undisturbed(self) -> None:
        """It had everything, on one connection, and was quick."""
        browser = self._browser
        Deadline(10).until(lambda: len(browser.messages) > 2 * BYSTANDER_EVENTS, browser)
        sent = self._sender.stop()
        Deadline(5).until(lambda: has_come_to(browser, sent.ids[-1]), browser)
        Delivery(sent, browser.events).assert_exactly_once()
        assert browser.connects == 1
        arrived = {e.data: at for e, at in zip(browser.events, browser.arrivals, strict=True)}
        waits = [arrived[data] - began for data, began in self._sender.began.items()]
        assert_quick(waits, self._site)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._sender.stop()
        self._site.leave()


@pytest.fixture(scope="module")
def site_beside(shared_servers: SharedServers) -> Iterator[Site]:
    url, prefix, kind = shared_servers.url("valkey"), f"t-{uuid.uuid4().hex[:12]}", KINDS["uvicorn"]
    server = WebServer(kind, app_for(kind), env=environment(url, prefix=prefix, **CONFIG)).start()
    with contextlib.closing(Site(server, url, prefix)) as site:
        yield site


@pytest.fixture
def bystander(site_beside: Site) -> Iterator[Bystander]:
    with contextlib.closing(Bystander(site_beside)) as bystander:
        yield bystander


def pids(site: Site) -> set[int]:
    return {worker.pid for worker in site.server.workers()}


def ups(site: Site) -> int:
    """How many workers have come up so far."""
    return site.server.output.count(site.kind.is_up)


def all_new(site: Site, before: set[int], ups_before: int) -> None:
    """Other workers serve: as many as there were, and none of the old ones."""
    Deadline(15).until(
        lambda: not before & pids(site) and ups(site) >= ups_before + site.server.worker_count,
        lambda: f"{before} became {pids(site)}\n{site.server.output[-2000:]}",
        every=0.05,
    )


# What the servers say of each worker that they start.
_BOOTING = ("Booting worker", "Started server process", "Spawning worker-")


def is_steady(site: Site) -> bool:
    """Each worker that was started is up: signals get lost in one that is booting."""
    output = site.server.output
    booted = max(output.count(words) for words in _BOOTING)
    return len(pids(site)) >= site.server.worker_count and output.count(site.kind.is_up) >= booted


def ask_until_recycled(site: Site) -> None:
    """Requests until a worker has had its fill; the kernel decides which."""
    before = pids(site)

    def is_recycled() -> bool:
        try:
            http.get(f"{site.server.url}/ping", timeout=5)
        except httpx.HTTPError:
            pass  # a worker that is going may drop what it has not answered
        return not before <= pids(site)

    Deadline(10).until(is_recycled, lambda: site.server.output[-2000:], every=0.001)
    Deadline(15).until(lambda: is_steady(site), lambda: site.server.output[-2000:], every=0.05)


class Cast:
    """One server's clients and sender, and what they live to see."""

    def __init__(self, site: Site, room: str, prefix: str) -> None:
        self.site = site
        self.life = LIVES[site.kind.name]
        self.warm = self._warmed_up(room)
        self.browsers = [site.browser(room).wait_open() for _ in range(self.life.clients)]
        self.forgetful = ForgetfulBrowser(site.server.stream_url("events", room)).wait_open()
        self.sender = Sender(site.redis_url, prefix, room, rate=50)
        for browser in self.browsers:
            browser.wait_for(5)

    def _warmed_up(self, room: str) -> dict[str, int]:
        """What a worker holds when its clients have left."""
        for n in range(self.life.clients):
            self.site.browser(f"{room} warm up {n}").wait_open()
        self.site.leave()
        Deadline(5).until(lambda: not self._clients(), self._clients)
        return self._held()

    def _clients(self) -> int:
        """How many connections with clients its workers have."""
        return sum(
            connection.laddr.port == self.site.server.port and connection.status == "ESTABLISHED"
            for worker in self.site.server.workers()
            for connection in worker.net_connections("tcp")
        )

    def _held(self) -> dict[str, int]:
        workers = self.site.server.workers()
        return {
            "threads": max(worker.num_threads() for worker in workers),
            "fds": max(worker.num_fds() - self._to_redis(worker) for worker in workers),
        }

    def _to_redis(self, worker: psutil.Process) -> int:
        """They are made when several want one at a time, and kept: five at the most."""
        port = urllib.parse.urlsplit(self.site.redis_url).port
        ports = [each.raddr.port for each in worker.net_connections("tcp") if each.raddr]
        assert ports.count(port) <= 5, ports
        return ports.count(port)

    def live(self) -> None:
        """All that happens to workers, while events flow."""
        if self.life.recycling:
            self._politely(lambda: ask_until_recycled(self.site))
        # In this order: granian takes one killed within 5.5 s of its start for a crash loop.
        if self.life.is_replaced:
            self._kill()
        self._politely(self._reload)
        for browser in self.browsers:
            browser.wait_for(len(browser.messages) + 20, 10)

    def _politely(self, act: Callable[[], object]) -> None:
        """Who is sent away meanwhile is not told that this is all."""
        before = [len(browser.ends) for browser in self.browsers]
        act()
        for browser, count in zip(self.browsers, before, strict=True):
            assert "clean" not in browser.ends[count:], browser.ends

    def _reload(self) -> None:
        before, ups_before = pids(self.site), ups(self.site)
        opens = [browser.opens for browser in self.browsers]
        self.site.server.child.signal(signal.SIGHUP)
        all_new(self.site, before, ups_before)
        for browser, count in zip(self.browsers, opens, strict=True):
            browser.wait_for(lambda b, count=count: b.opens > count, 5, "it is back")

    def _kill(self) -> None:
        before, ups_before = pids(self.site), ups(self.site)
        for pid in sorted(before):
            os.kill(pid, signal.SIGKILL)
            seen = len(self.sender.sent)
            Deadline(5).until(lambda seen=seen: len(self.sender.sent) > seen + 20)
        all_new(self.site, before, ups_before)

    def stop(self) -> float:
        """TERM with streams open; how long the server took to be gone."""
        for browser in [*self.browsers, self.forgetful]:
            browser.wait_open()
        before = [len(browser.ends) for browser in self.browsers]
        start = time.monotonic()
        took = self.site.server.terminate(within=self.site.kind.stops_within + 5)
        for browser, count in zip(self.browsers, before, strict=True):
            browser.wait_for(lambda b, count=count: len(b.ends) > count, 2, "the response's end")
            assert browser.ends[count] != "clean"
            assert browser.ended_at[count] - start - self.site.server.held_up < 1
        return took

    def start_again(self) -> None:
        self.site.server.start()
        for browser in self.browsers:
            browser.wait_for(len(browser.messages) + 20, 10)

    def finish(self) -> None:
        sent = self.sender.stop()
        self.forgetful.close()
        assert Delivery(sent, self.forgetful.events).missing, "the checker has no teeth"
        least, most = (seconds * 1000 for seconds in CONFIG["retry_interval"])
        for browser in self.browsers:
            browser.wait_for(lambda b: b.messages[-1].last_event_id == sent.ids[-1], 10)
            Delivery(sent, browser.events).assert_exactly_once()
            assert browser.statuses == [200] * browser.opens, "never 5xx"
            assert all(least <= retry <= most for retry in browser.retries)
        assert len({retry for browser in self.browsers for retry in browser.retries}) > 1
        lines = [x for x in self.site.server.output.splitlines() if "streamy_redis" in x]
        # Nothing is wrong with Redis, so nothing is said again and again.
        _a_second, once = LOG_LINES
        assert len(lines) <= once, lines[:20]
        self.site.leave()
        Deadline(10).until(
            lambda: (
                not self._clients()
                and all(self._held()[key] <= least for key, least in self.warm.items())
            ),
            lambda: f"{self.warm} became {self._held()}",
            every=0.1,
        )

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.sender.stop()
        self.forgetful.close()


@pytest.mark.parametrize("kinds", GROUPS, ids=" and ".join)
def test_recycled_reloaded_killed_and_stopped(
    served: Callable[..., Site],
    bystander: Bystander,
    room: str,
    prefix: str,
    kinds: tuple[str, ...],
):
    def for_each(act: Callable[[Any], T], of: Sequence[Any]) -> list[T]:
        done = [side_by_side.submit(act, each) for each in of]
        results = []
        for kind, each in zip(kinds, done, strict=True):
            try:
                results.append(each.result())
            except AssertionError as error:
                error.add_note(f"on {kind}")
                raise
        return results

    def start(kind: str) -> Cast:
        life = LIVES[kind]
        site = served(kind, *life.recycling, *life.more)
        casts.append(Cast(site, f"{room} {kind}", prefix))
        return casts[-1]

    casts: list[Cast] = []
    with ThreadPoolExecutor(len(kinds)) as side_by_side:
        try:
            for_each(start, kinds)
            in_order = sorted(casts, key=lambda cast: kinds.index(cast.site.kind.name))
            for_each(Cast.live, in_order)
            # One after the other: their time is taken.
            for cast in in_order:
                took = cast.stop()
                print(f"{cast.site.kind} was gone {took:.2f} s after TERM")
                assert took < cast.site.kind.stops_within, cast.site.server.output[-2000:]
            for_each(Cast.start_again, in_order)
            for_each(Cast.finish, in_order)
            bystander.assert_undisturbed()
        finally:
            for cast in casts:
                cast.close()


class PunctualBrowser(EventSource):
    """Notes when it dialled."""

    dialled: list[float]

    def _dial(self, address: tuple[str, int]) -> socket.socket:
        self.dialled = [*getattr(self, "dialled", []), time.monotonic()]
        return super()._dial(address)


def most_in_a_part(count: int, part: float) -> int:
    """How many of so many that spread uniformly may lie in one part, with 1 in 10^6 to be wrong.

    Behind each there lie as many of the others as a binomial distribution says.
    """
    others = count - 1

    def odds(least: int) -> float:
        return sum(
            math.comb(others, n) * part**n * (1 - part) ** (others - n) for n in range(least, count)
        )

    return next(most for most in range(1, count) if count * odds(most) < 1e-6)


def test_retry_spreads_the_return(served: Callable[..., Site], bystander: Bystander, room: str):
    """Else all the clients of a worker would come back in one moment."""
    least, most, count = 0.2, 1.2, 96
    site = served("gunicorn-gthread", retry_interval=(least, most))
    url = site.server.stream_url("events", room)
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(PunctualBrowser(url)) for _ in range(count)]
        for browser in browsers:
            browser.wait_open()
        site.server.child.signal(signal.SIGHUP)
        for browser in browsers:
            browser.wait_for(lambda b: b.opens >= 2, 10, "it is back")
            assert browser.ends[0] != "clean"
        returns = sorted(browser.dialled[1] for browser in browsers)
        waits = [b.dialled[1] - b.ended_at[0] for b in browsers]

    assert least - 0.01 <= min(waits)
    assert max(waits) < most + 0.3
    most_in_a_moment = max(sum(t <= other < t + 0.1 for other in returns) for t in returns)
    allowed = most_in_a_part(count, 0.1 / (most - least))
    print(f"{most_in_a_moment} of {count} came back within 0.1 s, {allowed} allowed")
    assert most_in_a_moment <= allowed, [f"{t - returns[0]:.2f}" for t in returns]
    bystander.assert_undisturbed()


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "uvicorn"])
def test_max_lifetime_spreads_the_ends(served: Callable[..., Site], room: str, kind: str):
    """Responses that began in one moment end over the last fifth of their time."""
    lifetime, count = 5.0, 72
    url = served(kind, max_lifetime=lifetime).server.stream_url("events", room)
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(PunctualBrowser(url)) for _ in range(count)]
        for browser in browsers:
            browser.wait_for(lambda b: b.ends, lifetime + 3, "its end")
        # A response begins between these two.
        since_dialled = [b.ended_at[0] - b.dialled[0] for b in browsers]
        since_open = [b.ended_at[0] - b.arrivals[0] for b in browsers]

    assert "clean" not in {browser.ends[0] for browser in browsers}
    assert min(since_dialled) > 0.8 * lifetime
    assert max(since_open) < lifetime + TICK_INTERVAL + 0.3
    # None of 72 in a quarter of the spread, the first or the last one: 2 x 0.75^72, 1 in 5 x 10^8.
    # Looked at every TICK_INTERVAL, they end up to that much later.
    assert min(since_open) < 0.85 * lifetime + TICK_INTERVAL + 0.1, sorted(since_open)
    assert max(since_dialled) > 0.95 * lifetime, sorted(since_dialled)


@pytest.mark.parametrize(
    ("kind", "app"),
    [
        ("gunicorn-gthread", "tests.faults.preloaded:app"),
        ("gunicorn-gevent", "tests.faults.preloaded:app"),
        ("gunicorn-asgi", "tests.faults.preloaded_asgi:app"),
    ],
)
def test_a_send_before_the_fork(
    served: Callable[..., Site], bystander: Bystander, room: str, kind: str, app: str
):
    """Each worker has its own connections and threads; no reply is mixed up.

    Unlike those of who sends over the connection that the master had opened.
    """
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
    bystander.assert_undisturbed()
    Deadline(20).until(lambda: is_mixed_up(site, f"{room} naive"), "the test has teeth")


def is_mixed_up(site: Site, room: str) -> bool:
    """Whether requests whose sends share a connection got replies of each other's."""
    name = uuid.uuid4().hex[:8]
    with ThreadPoolExecutor(8) as requests:
        urls = [f"{site.server.stream_url('naively', room)}/{name}-{n}" for n in range(8)]
        told = itertools.chain(*(each.json() for each in requests.map(http.post, urls)))
    try:
        assert_mixed_up(told, in_the_log(site.redis_url, site.prefix, room))
    except AssertionError:
        return False  # All of them came to one worker.
    return True


def in_the_log(redis_url: str, prefix: str, room: str) -> list[MessageEvent]:
    with contextlib.closing(redis.Redis.from_url(redis_url)) as store:
        return stored(store, f"{prefix}:{{{room}}}:log")


def test_celery_prefork(
    redis_url: str, prefix: str, bystander: Bystander, room: str, tmp_path: Path
):
    """The parent has sent before it forks; each child has connections of its own.

    But for one that they naively inherited.
    """
    env = {"TEST_REDIS_URL": redis_url, "TEST_PREFIX": prefix, "PYTHONPATH": str(ROOT)}
    command = [
        *(sys.executable, "-m", "celery", "-A", "tests.faults.celery_jobs", "worker"),
        *("-l", "INFO", "--pool", "prefork", "-c", "4", "--without-gossip", "--without-mingle"),
    ]
    worker = Child(command, tmp_path / "log", env=env)
    try:
        Deadline(30).until(lambda: " ready." in worker.output, lambda: worker.output[-3000:])
        with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
            with (
                streams.subscribe(f"{room} returned") as returned,
                celery.Celery("sender", broker=redis_url) as jobs,
            ):
                for n in range(80):
                    jobs.send_task(
                        "tests.faults.celery_jobs.send", (room, n), queue=f"{prefix} jobs"
                    )
                told = [
                    json.loads(event.data) for _, event in zip(range(80), returned, strict=False)
                ]
                bystander.assert_undisturbed()
            with streams.subscribe(room, replay="all") as events:
                seen = {event.id: event.data for _, event in zip(range(80), events, strict=False)}
            assert streams.info("at import").length == 1
        assert {each["id"]: each["data"] for each in told} == seen, "each its own reply"
        assert len({data.split()[1] for data in seen.values()}) == 80, "each once"
        assert len({each["pid"] for each in told}) >= 2, "several processes"
        children = [process for process in worker.children() if process.children() == []]
        own = [
            {c.laddr.port for c in p.net_connections("tcp") if c.status == "ESTABLISHED"}
            for p in children
        ]
        shared = [port for port, by in Counter(itertools.chain(*own)).items() if by > 1]
        assert len(shared) == 1, "no connection is shared but the naive one"
        with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
            assert_caught_naively(streams, redis_url, prefix, room)
        assert "Traceback" not in worker.output
    finally:
        worker.stop(grace=5)


def assert_caught_naively(streams: StreamManager, redis_url: str, prefix: str, room: str) -> None:
    with (
        streams.subscribe(f"{room} naively returned") as returned,
        celery.Celery("sender", broker=redis_url) as jobs,
    ):
        for n in range(8):
            jobs.send_task(
                "tests.faults.celery_jobs.send_naively", (room, n), queue=f"{prefix} jobs"
            )
        told = [json.loads(event.data) for _, event in zip(range(8), returned, strict=False)]
    assert_mixed_up(itertools.chain(*told), in_the_log(redis_url, prefix, f"{room} naive"))


def test_killed_between_an_end_and_its_delivery(
    served: Callable[..., Site], bystander: Bystander, room: str
):
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
    bystander.assert_undisturbed()


def is_stopped(pid: int) -> bool:
    """Whether every thread has taken notice of SIGSTOP."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


PATCH = """
from gevent import monkey
monkey.patch_all()
"""
PATCHED = """
import sys
{before}
from streamy_redis import StreamConfig, StreamManager
{after}
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


# What only listens, handed on by a queue that holds on to what the import saw.
NAIVE = """
import sys
{before}
import redis
from queue import SimpleQueue
{after}
import gevent
url, channel = sys.argv[1:]
heard = SimpleQueue()
def listen():
    with redis.Redis.from_url(url).pubsub() as pubsub:
        pubsub.subscribe(channel)
        for message in pubsub.listen():
            heard.put(message["type"])
gevent.spawn(listen)
print(heard.get())
"""


def run_naively(redis_url: str, prefix: str, when: str) -> str:
    """What it heard first: that it is subscribed; or nothing, within a time."""
    program = NAIVE.format(**{"before": "", "after": "", when: PATCH})
    command = [sys.executable, "-W", "ignore", "-c", program, redis_url, f"{prefix}:naive"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except subprocess.TimeoutExpired:
        return ""


@pytest.mark.parametrize("when", ["before", "after"])
def test_gevent_that_patches_before_or_after_the_import(redis_url: str, prefix: str, when: str):
    """It works, or it says at once what is wrong.

    To patch before is what gevent asks for: that harms nobody. What is naive waits for ever when it
    is patched after, since what it imported stops the loop.
    """
    program = PATCHED.format(**{"before": "", "after": "", when: PATCH})
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, redis_url, prefix],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )

    assert done.stdout == "works\n", done.stderr[-3000:]
    naively = run_naively(redis_url, prefix, when)
    assert naively == ("subscribe\n" if when == "before" else ""), "the test has no teeth"
