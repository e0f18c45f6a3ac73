"""The works: what each contestant has to do, and who takes part in which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .contestants import CONTESTANTS, OURS, Contestant
from .figures import Figures
from .sender import Plan
from .serving import Serving
from .stage import Stage

__all__ = ["WORKS", "Pace", "Work"]

_ROOM = "room"
_BESIDE = "beside"
_PEERS = tuple(name for name, contestant in CONTESTANTS.items() if not contestant.is_ours)
_OURS = tuple(contestant.name for contestant in OURS)
# Clients, and events a second: 20,000 deliveries a second at each size.
_SIZES = ((100, 200.0), (1000, 20.0), (4000, 5.0))
_MISSED = 1000


@dataclass(frozen=True, slots=True)
class Pace:
    """How long works take.

    Attributes:
        seconds: for which events are sent.
        clients: the part of the clients that takes part, 1 but in a trial.
    """

    seconds: float = 5.0
    clients: float = 1.0

    def count(self, clients: int) -> int:
        return max(10, round(clients * self.clients))


Perform = Callable[[Stage, Contestant, Pace], Figures]


@dataclass(frozen=True, slots=True)
class Work:
    """One work.

    Attributes:
        title: for the tables.
        contestants: names of those that take part, in order.
    """

    name: str
    title: str
    contestants: Sequence[str]
    perform: Perform


def _fan_out(stage: Stage, contestant: Contestant, pace: Pace) -> Figures:
    clients = pace.count(500)
    with stage.serve(contestant) as serving:
        opened = _open(serving, [_ROOM] * clients)
        run = serving.run(Plan([_ROOM], rate=40, seconds=pace.seconds), clients)
        return {**opened, **run, **serving.redis_connections()}


def _many_streams(stage: Stage, contestant: Contestant, pace: Pace) -> Figures:
    streams = [f"stream-{i}" for i in range(pace.count(500))]
    with stage.serve(contestant) as serving:
        opened = _open(serving, streams)
        rate = 12.0 * len(streams)
        run = serving.run(Plan(streams, rate=rate, seconds=pace.seconds), len(streams))
        return {**opened, **run, **serving.redis_connections()}


def _bursts(stage: Stage, contestant: Contestant, pace: Pace) -> Figures:
    clients = pace.count(200)
    with stage.serve(contestant) as serving:
        opened = _open(serving, [_ROOM] * clients)
        plan = Plan([_ROOM], rate=200, seconds=pace.seconds, batch=50)
        return {**opened, **serving.run(plan, clients)}


def _idle(stage: Stage, contestant: Contestant, pace: Pace) -> Figures:
    clients = pace.count(contestant.idle_clients)
    with stage.serve(contestant) as serving:
        opened = _open(serving, [_ROOM] * clients)
        connections = serving.redis_connections()
        peak = float(serving.worker.pss())
        return {**opened, **connections, "clients": float(clients), "pss_peak": peak}


def _resume(stage: Stage, contestant: Contestant, pace: Pace) -> Figures:
    clients = pace.count(200)
    with stage.serve(contestant) as serving:
        cursor = stage.sender.call("send_all", _ROOM, _MISSED)
        cpu, events = 0.0, 0
        # The first round, which is not counted, warms up.
        for clients_now in (1, *[clients] * 3):
            stage.load.call("begin", 1)
            before = serving.rest()
            serving.begin_to_open([_ROOM] * clients_now, last_event_id=cursor)
            received = serving.collect(clients_now, _MISSED)
            if clients_now == clients:
                cpu += serving.worker.cpu_seconds() - before
                events += received.events
            serving.close_clients()
        # Right after it, since a machine is not equally fast for all the minutes of a run.
        beside = pace.count(500)
        _open(serving, [_BESIDE] * beside)
        fan_out = serving.run(Plan([_BESIDE], rate=40, seconds=pace.seconds), beside)
        return {
            "deliveries_per_cpu": events / cpu,
            "times_fan_out": events / cpu / fan_out["deliveries_per_cpu"],
            "pss_peak": float(serving.worker.pss()),
        }


def _growth(stage: Stage, contestant: Contestant, pace: Pace) -> Figures:
    figures: Figures = {}
    for size, rate in _SIZES:
        clients = pace.count(size)
        with stage.serve(contestant) as serving:
            _open(serving, [_ROOM] * clients)
            run = serving.run(Plan([_ROOM], rate=rate, seconds=pace.seconds), clients)
            figures[f"cost_{size}"] = 1 / run["deliveries_per_cpu"]
            figures[f"load_share_{size}"] = run["load_share"]
    figures["growth_1000"] = figures["cost_1000"] / figures["cost_100"]
    figures["growth"] = figures["cost_4000"] / figures["cost_100"]
    return figures


def _open(serving: Serving, streams: Sequence[str]) -> Figures:
    """Opens the first client, then the rest, and says what each of these costs."""
    serving.open(streams[:1])
    serving.probe(streams[:1])
    cpu, pss = serving.rest(), serving.worker.pss()
    serving.open(streams[1:])
    cpu = serving.rest() - cpu
    each = len(streams) - 1
    opened = {
        "accept_cpu": cpu / each,
        "pss_per_client": (serving.worker.pss() - pss) / each,
    }
    serving.probe(list(dict.fromkeys(streams)))
    return opened


WORKS = {
    work.name: work
    for work in (
        Work("fanout", "Fan-out: 500 clients on one stream", (*_PEERS, *_OURS), _fan_out),
        Work(
            "many",
            "Many streams: 500 streams, one client each",
            ("sse-starlette", "broadcaster", "bare", "bare-starlette", *_OURS),
            _many_streams,
        ),
        Work(
            "bursts",
            "Bursts: 50 events at once, 200 clients",
            ("sse-starlette", "nchan", "bare", *_OURS),
            _bursts,
        ),
        Work(
            "idle",
            "Idle: open clients at rest",
            (
                *("sse-starlette", "broadcaster", "flask-sse-gevent", "nchan", "bare"),
                *("bare-starlette", *_OURS),
            ),
            _idle,
        ),
        Work("resume", "Resume: 200 clients, 1,000 missed events each", _OURS, _resume),
        Work(
            "growth",
            "Growth: the cost of a delivery, by clients",
            ("ours-starlette", "ours-flask-sync", "ours-flask-gevent"),
            _growth,
        ),
    )
}
