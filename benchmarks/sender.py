"""The sender: a process that sends numbered events at a steady pace."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from .cores import pin, rest_cores
from .payload import PROBE, payload
from .remote import serve
from .routes import Route, RouteKind, open_route

__all__ = ["Plan", "Sent", "main"]

# Seconds between two sends at the least: what is due by then goes out in one round trip.
_SHORTEST_INTERVAL = 0.005


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send.

    Attributes:
        streams: their names; events go to one after another.
        rate: events a second, over all streams.
        seconds: for how long.
        batch: events that go to one stream together.
    """

    streams: Sequence[str]
    rate: float
    seconds: float
    batch: int = 1

    @property
    def each(self) -> int:
        """Events that each stream gets."""
        rounds = max(1, round(self.rate * self.seconds / len(self.streams) / self.batch))
        return rounds * self.batch


@dataclass(frozen=True, slots=True)
class Sent:
    """When the last event was sent, how long all took, and the sender's own CPU seconds."""

    last_at: float
    seconds: float
    cpu: float


class Sender:
    """Sends by one route at a time. Its methods are called from the bench's process."""

    def __init__(self) -> None:
        self._route: Route | None = None

    def connect(self, kind: RouteKind, address: str) -> None:
        """Takes another route."""
        if self._route is not None:
            self._route.close()
        self._route = open_route(kind, address)

    def probe(self, streams: Sequence[str]) -> None:
        """Sends each stream an event that doesn't count."""
        assert self._route is not None
        self._route.send([(name, payload(PROBE, time.monotonic())) for name in streams])

    def send_all(self, stream_id: str, count: int) -> str | None:
        """Fills a history; the id of an event before the first one, where there are ids."""
        assert self._route is not None
        now = time.monotonic()
        ids = self._route.send([(stream_id, payload(PROBE, now))])
        for first in range(1, count + 1, 100):
            numbers = range(first, min(first + 100, count + 1))
            self._route.send([(stream_id, payload(seq, now)) for seq in numbers])
        return ids[0] if ids else None

    def run(self, plan: Plan) -> Sent:
        """Sends as planned, or as fast as it goes where that is too fast."""
        assert self._route is not None
        cpu, begun_at = time.process_time(), time.monotonic()
        batches = self._batches(plan)
        interval = max(plan.batch / plan.rate, _SHORTEST_INTERVAL)
        together = max(1, round(interval * plan.rate / plan.batch))
        sent = 0
        while group := list(itertools.islice(batches, together)):
            due_at = begun_at + sent * plan.batch / plan.rate
            time.sleep(max(0.0, due_at - time.monotonic()))
            now = time.monotonic()
            self._route.send([(name, payload(seq, now)) for name, seqs in group for seq in seqs])
            sent += len(group)
        now = time.monotonic()
        return Sent(last_at=now, seconds=now - begun_at, cpu=time.process_time() - cpu)

    def _batches(self, plan: Plan) -> Iterator[tuple[str, range]]:
        for first in range(1, plan.each + 1, plan.batch):
            for name in plan.streams:
                yield name, range(first, first + plan.batch)


def main(pipe: Connection) -> None:
    """The sender's process."""
    pin(rest_cores())
    sender = Sender()
    while serve(sender, pipe):
        pass
