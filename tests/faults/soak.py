"""Random faults for a long time: `python -m tests.faults.soak`.

STREAMY_SOAK_SECONDS    how long, 1800 by default
STREAMY_FAULT_SEED      the dice; printed, so that the order of the faults can be had again

Scene after scene, each with clients on three servers, senders, and several faults in a row; after
each fault everybody must be complete in its time, after each scene nothing may be left over.
Prints what was counted, and each failure at once; the exit status is 1 if anything was not as
promised. Bystanders' latency counts while Redis can be reached: in faults that take it away, or
its connections, from a server, it doesn't count for that server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.browser import EventSource
from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog

from .proxy import Fate
from .rude_clients import RudeClient, TricklingClient
from .stage import BYSTANDER_P99, Scene, Stage
from .test_lost_history import fill_the_memory
from .test_many_senders import program, record
from .test_refusals import CAUSES, CUTS_BY_ITSELF
from .test_storms import stampede

__all__ = ["main"]

KINDS = ("gunicorn-gthread", "gunicorn-gevent", "uvicorn")
# Seconds until all is delivered where nothing is wrong with Redis any more.
HEALED = 5.0


@dataclasses.dataclass
class Figures:
    """What was counted over all scenes."""

    scenes: int = 0
    sent: int = 0
    received: int = 0
    reconnects: int = 0
    resets: int = 0
    resets_expected: int = 0
    missing: int = 0
    repeated: int = 0
    out_of_order: int = 0
    foreign: int = 0
    send_errors: int = 0
    longest_send: float = 0.0
    naive_missing: int = 0
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: list[str] = dataclasses.field(default_factory=list)

    def take(self, scene: Scene) -> None:
        """One scene's records, whatever became of it."""
        self.scenes += 1
        both = ((scene.sender, scene.browsers), (scene.other, scene.bystanders))
        for sender, browsers in both:
            self.sent += len(sender.sent)
            self.send_errors += len(sender.errors)
            self.longest_send = max(self.longest_send, max(sender.took, default=0.0))
            for browser in browsers:
                self._take_client(sender.sent, browser)
                self.resets_expected += len(sender.sent.losses)
        self.naive_missing += len(Delivery(scene.sender.sent, scene.naive.events).missing)

    def fail(self, what: str) -> None:
        """Something was not as promised; said at once, and again at the end."""
        print(what[:3000], flush=True)
        self.failures.append(what[:3000])

    def _take_client(self, sent: SentLog, browser: EventSource) -> None:
        delivery = Delivery(sent, browser.events)
        self.received += len(browser.messages)
        self.reconnects += browser.opens - 1
        self.resets += delivery.resets
        self.missing += len(delivery.missing)
        self.repeated += len(delivery.repeated)
        self.out_of_order += len(delivery.out_of_order)
        self.foreign += len(delivery.foreign)

    def __str__(self) -> str:
        lines = [
            f"{field.name.replace('_', ' '):>16}: {getattr(self, field.name)}"
            for field in dataclasses.fields(self)
            if field.name not in ("faults", "failures")
        ]
        lines += [f"{count:>16} x {name}" for name, count in sorted(self.faults.items())]
        return "\n".join([*lines, f"{len(self.failures):>16} failures", *self.failures])


class SoakScene(Scene):
    """A scene that remembers what happened in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Which fault began when.
        self.acts: list[tuple[float, str]] = []

    def act(self, name: str, rng: random.Random) -> None:
        """One fault, until everybody is complete."""
        self.acts.append((time.monotonic(), name))
        FAULTS[name][1](self, rng)

    def wait_healed(self) -> None:
        """Until an event that is sent from now on is everywhere.

        While senders get no answers nothing is sent, and nobody can notice a silent connection.
        """
        senders = (self.sender, self.other)
        # One may be under way.
        counts = [len(sender.sent) + 2 for sender in senders]
        Deadline(10).until(
            lambda: all(len(s.sent) >= n for s, n in zip(senders, counts, strict=True)),
            lambda: f"senders send again: {[len(s.sent) for s in senders]}, not {counts}",
        )
        self.wait_complete(10)

    @property
    def plot(self) -> str:
        """The faults, and the second in which each began."""
        return ", ".join(f"{name} at {at - self._began:.1f} s" for at, name in self.acts)

    def slow(self) -> str:
        """When bystanders were not quick, in seconds from the beginning of the scene."""
        return "; ".join(
            f"{site.kind}: sent at {began - self._began:.2f} s, took {wait:.2f} s"
            for site in self.stage.sites
            for began, wait in self._waits(site)
            if wait > BYSTANDER_P99
        )

    def finish_soak(self) -> None:
        """As finish(), with as many resets as there were losses."""
        losses, beside = self.sender.sent.losses, self.other.sent.losses
        self.finish(resets=len(losses), beside_resets=len(beside))
        self.assert_manners()


Fault = Callable[[SoakScene, random.Random], None]
FAULTS: dict[str, tuple[int, Fault]] = {}


def fault(weight: int = 1, *, takes_redis_away: bool = False) -> Callable[[Fault], Fault]:
    """Registers a fault, which comes up as often as its weight says.

    Args:
        takes_redis_away: from all servers for a while, wholly or by losing connections.
    """

    def register(function: Fault) -> Fault:
        def act(scene: SoakScene, rng: random.Random) -> None:
            with scene.redis_away() if takes_redis_away else contextlib.nullcontext():
                function(scene, rng)
                scene.wait_healed()

        FAULTS[function.__name__.replace("_", " ")] = (weight, act)
        return function

    return register


@fault(3, takes_redis_away=True)
def connections_killed(scene: SoakScene, rng: random.Random) -> None:
    kinds = rng.choice([("pubsub",), ("normal",), ("pubsub", "normal")])
    for _ in range(rng.randint(3, 12)):
        for kind in kinds:
            scene.admin.client_kill_filter(_type=kind, skipme=True)
        scene.burst(rng.randint(1, 30))
        pause(rng.uniform(0.05, 0.6))


@fault(2, takes_redis_away=True)
def redis_stopped(scene: SoakScene, rng: random.Random) -> None:
    scene.stage.redis.hang()
    try:
        pause(rng.choice([0.5, 2, 2, 5, 10, 30]))
        scene.keep_alives_go_on()
    finally:
        scene.stage.redis.go_on()


@fault(2, takes_redis_away=True)
def redis_restarted_with_its_data(scene: SoakScene, rng: random.Random) -> None:
    scene.stage.redis.kill()
    pause(rng.choice([0, 0.3, 2, 6]))
    scene.stage.redis.restart()


@fault(takes_redis_away=True)
def redis_restarted_empty(scene: SoakScene, rng: random.Random) -> None:
    def restart() -> None:
        scene.wait_complete(HEALED)
        scene.stage.redis.kill()
        pause(rng.choice([0, 0.3, 2]))
        scene.stage.redis.restart(empty=True)

    scene.lose(restart)


@fault(takes_redis_away=True)
def history_lost(scene: SoakScene, rng: random.Random) -> None:
    how = rng.choice(["flush", "delete", "evict"])
    if how == "flush":
        scene.lose(lambda: (scene.wait_complete(HEALED), scene.admin.flushall()))
    elif how == "delete":
        scene.lose(lambda: scene.admin.delete(scene.log_key))
    else:
        scene.lose(lambda: fill_the_memory(scene))


@fault(2, takes_redis_away=True)
def failover_that_lost_nothing(scene: SoakScene, rng: random.Random) -> None:
    with scene.stage.standby() as standby, lagging(some_clients(scene, rng), rng):
        pause(rng.uniform(0, 1))
        scene.fail_over_with_everything(standby)
        pause(rng.uniform(0, 0.5))


@fault(3, takes_redis_away=True)
def failover_that_lost_the_newest(scene: SoakScene, rng: random.Random) -> None:
    """Who lags has seen nothing of what is lost, or some of it, or all."""
    clients = some_clients(scene, rng)
    with scene.stage.standby() as standby, contextlib.ExitStack() as stack:
        stack.enter_context(lagging(clients[::2], rng))
        standby.lag()
        pause(rng.uniform(0.05, 1))
        scene.burst(rng.randint(1, 300))
        stack.enter_context(lagging(clients[1::2], rng))
        pause(rng.uniform(0, 0.5))
        scene.fail_over(standby)
        pause(rng.choice([0, 0.5, 2]))


@fault(2)
def clients_that_lag(scene: SoakScene, rng: random.Random) -> None:
    with lagging(some_clients(scene, rng), rng):
        pause(rng.uniform(0, 2))
        scene.burst(rng.randint(1, 300))


def some_clients(scene: SoakScene, rng: random.Random) -> list[EventSource]:
    return rng.sample(scene.browsers, k=rng.randint(1, len(scene.browsers) - 1))


@contextlib.contextmanager
def lagging(clients: list[EventSource], rng: random.Random) -> Iterator[None]:
    """They have no network, or read nothing, meanwhile."""
    for browser in clients:
        rng.choice([browser.leave, browser.pause])()
    try:
        yield
    finally:
        for browser in clients:
            browser.come_back()
            browser.go_on()


@fault()
def history_trimmed_under_those_who_are_live(scene: SoakScene, rng: random.Random) -> None:
    def trim() -> None:
        scene.wait_complete(HEALED)
        scene.admin.xtrim(scene.log_key, maxlen=rng.randint(1, 20), approximate=False)

    scene.paused(trim)


@fault(2)
def one_process_cut_off(scene: SoakScene, rng: random.Random) -> None:
    site = rng.choice(scene.stage.sites)
    seconds = rng.choice([0, 3, 8, 20])
    with scene.redis_away(site):
        if seconds:
            site.proxy.cut_silently()
            pause(seconds)
            site.proxy.let_new_through()
        else:
            site.proxy.forget_connections()
        pause(0.5)
        scene.wait_healed()


@fault()
def messages_swallowed(scene: SoakScene, rng: random.Random) -> None:
    site = rng.choice(scene.stage.sites)
    with scene.redis_away(site):
        site.proxy.swallows_messages = True
        try:
            scene.burst(5)
            scene.wait_complete(10)
        finally:
            site.proxy.swallows_messages = False
        # What was swallowed last is noticed by its follower.
        scene.wait_complete(10)


@fault(2, takes_redis_away=True)
def replies_lost(scene: SoakScene, rng: random.Random) -> None:
    for _ in range(rng.randint(2, 8)):
        fate = rng.choice(list(Fate))
        scene.stage.senders.mark(b"EVALSHA", fate, rng.randint(1, 3))
        site = rng.choice(scene.stage.sites)
        site.proxy.mark(rng.choice([b"EVALSHA", b"\r\nSUBSCRIBE\r\n"]), rng.choice(list(Fate)))
        site.proxy.halves_messages = rng.randint(0, 1)
        scene.admin.client_kill_filter(_type="pubsub")
        pause(rng.uniform(0.1, 1))
    # What no reply met by then: the fault is over.
    for proxy in (scene.stage.senders, *(site.proxy for site in scene.stage.sites)):
        proxy.forget_marks()
        proxy.halves_messages = 0


@fault(2, takes_redis_away=True)
def redis_refuses(scene: SoakScene, rng: random.Random) -> None:
    # WRONGTYPE takes the history away for a moment: its own test looks at that.
    name = rng.choice([name for name in CAUSES if name != "WRONGTYPE"])
    with contextmanager(CAUSES[name][0])(scene):
        pause(rng.uniform(0.5, 2))
        if name not in CUTS_BY_ITSELF:
            scene.admin.client_kill_filter(_type="pubsub")
        pause(rng.uniform(0.5, 3))


@fault()
def scripts_flushed(scene: SoakScene, rng: random.Random) -> None:
    for _ in range(20):
        scene.admin.script_flush()
        pause(rng.uniform(0, 0.1))


@fault()
def junk_on_the_channel(scene: SoakScene, rng: random.Random) -> None:
    for _ in range(30):
        scene.admin.publish(scene.channel, rng.randbytes(rng.randint(0, 400)))
        pause(0.01)


@fault(takes_redis_away=True)
def hung_up_on(scene: SoakScene, rng: random.Random) -> None:
    site = rng.choice(scene.stage.sites)
    site.proxy.hangs_up = True
    site.proxy.kill_connections()
    pause(rng.uniform(0.2, 3))
    site.proxy.hangs_up = False


@fault(2)
def clients_cut(scene: SoakScene, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 5)):
        for browser in rng.sample(scene.browsers, k=rng.randint(1, len(scene.browsers))):
            browser.cut(reset=rng.random() < 0.5)
        pause(rng.uniform(0.05, 0.8))


@fault()
def rude_clients(scene: SoakScene, rng: random.Random) -> None:
    site = rng.choice(scene.stage.sites)
    url = site.server.stream_url("events", scene.room)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(contextlib.closing(RudeClient(url, receive_buffer=4096)))
        stack.enter_context(contextlib.closing(TricklingClient(url)))
        gone = stack.enter_context(contextlib.closing(RudeClient(url)))
        gone.read_until(b"stream-open").vanish()
        for n in range(200):
            client = RudeClient(site.server.stream_url("events", f"{scene.room} left {n}"))
            pause(rng.choice([0, 0, 0.002]))
            if rng.random() < 0.5:
                client.reset()
            else:
                client.close()


@fault()
def clients_that_are_full(scene: SoakScene, rng: random.Random) -> None:
    """Each has a stream of its own, which ends or not, and leaves with its socket full."""
    with contextlib.ExitStack() as stack:
        stuck = []
        for n, site in enumerate(scene.stage.sites):
            room = f"{scene.room} full {len(scene.acts)} {n}"
            url = site.server.stream_url("events", room)
            client = stack.enter_context(contextlib.closing(RudeClient(url, receive_buffer=4096)))
            client.read_until(b"stream-open")
            client.fill(lambda data, room=room: scene.sender.streams.send_event(room, data))
            if rng.random() < 0.5:
                scene.sender.streams.end_stream(room)
            stuck.append(client)
        for client in rng.sample(stuck, k=2):
            client.reset()


@fault()
def processes_that_fork(scene: SoakScene, rng: random.Random) -> None:
    arguments = (scene.stage.redis.url, scene.stage.prefix, scene.room)
    process = program("while_forking", *arguments, str(rng.random()))
    assert record(scene.sender.sent, process) == 0


@fault()
def processes_that_die(scene: SoakScene, rng: random.Random) -> None:
    arguments = (scene.stage.redis.url, scene.stage.prefix, scene.room)
    for how in rng.choices(["gone", "killed"], k=4):
        record(scene.sender.sent, program("and_die", *arguments, how))


@fault()
def stampede_of_1000(scene: SoakScene, rng: random.Random) -> None:
    site = scene.stage.sites[-1]
    paths = [f"/events/stampede-{rng.randint(0, 99)}?n={n}" for n in range(1000)]
    stampede(site.server.port, paths, timeout=20)


@fault()
def resume_of_everything(scene: SoakScene, rng: random.Random) -> None:
    """At the most 5,000 events for each of 24."""
    if scene.sender.sent.losses:
        return
    cursor = scene.browsers[0].of_type("stream-open")[0].last_event_id
    late = [
        site.browser(scene.room, last_event_id=cursor)
        for site in scene.stage.sites
        for _ in range(8)
    ]
    newest = scene.sender.sent.ids[-1]
    for browser in late:
        browser.wait_for(lambda b: any(e.last_event_id == newest for e in b.messages), 30, newest)
        browser.close()
        # While no send is under way: its event may be here before its sender knows of it.
        seen = scene.paused(lambda b=browser: Delivery(scene.sender.sent, b.events))
        wrong = [*seen.repeated, *seen.out_of_order, *seen.foreign]
        assert not wrong, seen.verdict()
        assert not seen.resets, seen.verdict()


@fault(2)
def worker_killed(scene: SoakScene, rng: random.Random) -> None:
    site = rng.choice(scene.stage.sites[:-1])  # uvicorn is alone: nobody would start it again
    boots = site.server.output.count(site.kind.is_up)
    opens = {browser: browser.opens for browser in scene.browsers_of(site)}
    # Its own clients have nobody who could be quick; those of the others do.
    with scene.redis_away(site):
        if rng.random() < 0.5:
            (worker,) = site.server.workers()
            os.kill(worker.pid, signal.SIGKILL)
        else:
            site.server.child.signal(signal.SIGHUP)
        Deadline(20).until(
            lambda: (
                site.server.output.count(site.kind.is_up) > boots
                and len(site.server.workers()) == 1
            ),
            "a new worker",
        )
        # gthread's new worker makes its threads as it needs them: fewer than at the start.
        for browser, before in opens.items():
            browser.wait_for(lambda b, before=before: b.opens > before, 15, "it is back")


def pause(seconds: float) -> None:
    time.sleep(seconds)


def play(stage: Stage, rng: random.Random, figures: Figures, end: float) -> None:
    """One scene, with one to six faults in a row."""
    scene = SoakScene(stage, sender_url=stage.senders.url, naive_url=stage.unharmed.url)
    try:
        try:
            for _ in range(rng.randint(1, 6)):
                name = rng.choices(list(FAULTS), [w for w, _ in FAULTS.values()])[0]
                figures.faults[name] += 1
                scene.act(name, rng)
                if time.monotonic() > end:
                    break
            scene.finish_soak()
        finally:
            for sender in (scene.sender, scene.other):
                # Else the last event may be delivered before its sender knows of it.
                with contextlib.suppress(Exception):
                    sender.stop()
            figures.take(scene)
    except Exception as error:
        traceback.print_exc()
        figures.fail(f"in scene {figures.scenes} ({scene.plot}): {error}\n{scene.slow()}")
    finally:
        heal(stage)
        scene.close()
    try:
        stage.assert_back_to_the_start(20)
    except AssertionError as error:
        figures.fail(f"after scene {figures.scenes} ({scene.plot}): {error}")


def heal(stage: Stage) -> None:
    """What a failed fault may have left switched on must not spoil the next scene."""
    with contextlib.suppress(Exception):
        stage.redis.go_on()
    for proxy in [*(site.proxy for site in stage.sites), stage.senders]:
        proxy.swallows_messages = False
        proxy.refuses_with = None
        proxy.halves_messages = 0
        proxy.hangs_up = False
        proxy.forget_marks()
        if not proxy.is_open:
            proxy.let_new_through()


def main() -> int:
    seconds = float(os.environ.get("STREAMY_SOAK_SECONDS", "1800"))
    seed = os.environ.get("STREAMY_FAULT_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"soak for {seconds:.0f} s with STREAMY_FAULT_SEED={seed}", flush=True)
    rng = random.Random(seed)
    figures = Figures()
    start = time.monotonic()
    end = start + seconds
    stage = Stage(KINDS)
    try:
        while time.monotonic() < end:
            play(stage, rng, figures, end)
            print(
                f"{time.monotonic() - start:6.0f} s: {figures.scenes} scenes, "
                f"{figures.sent} sent, {figures.received} received, "
                f"{figures.missing} missing, {figures.repeated} repeated, "
                f"{len(figures.failures)} failures",
                flush=True,
            )
    finally:
        stage.close()
    print(f"{time.monotonic() - start:.0f} s, STREAMY_FAULT_SEED={seed}\n{figures}", flush=True)
    return bool(
        figures.failures
        or figures.missing
        or figures.repeated
        or figures.out_of_order
        or figures.foreign
        or figures.resets != figures.resets_expected
    )


if __name__ == "__main__":
    sys.exit(main())
