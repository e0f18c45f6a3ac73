"""The checker: what was sent against what a client saw."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Delivery", "SentLog", "position_of"]


class Seen(Protocol):
    """A MessageEvent."""

    @property
    def type(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def last_event_id(self) -> str: ...


def position_of(event_id: str) -> tuple[int, int]:
    """The order of an event id `<epoch>-<seq>-<tag>`."""
    epoch, seq, _tag = event_id.split("-")
    return int(epoch), int(seq)


class SentLog:
    """What senders' send_event returned, and what they sent without getting an answer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: dict[str, str] = {}
        self._unsure: list[str] = []
        self._losses: list[set[str]] = []

    def returned(self, event_id: str, data: str) -> None:
        with self._lock:
            assert event_id not in self._returned, f"the id {event_id} was returned twice"
            self._returned[event_id] = data

    def unsure(self, data: str) -> None:
        """A send that raised: it may be delivered, once, but need not be."""
        with self._lock:
            self._unsure.append(data)

    def lose(self, ids: Collection[str]) -> None:
        """A failover, or whatever took the history away, lost these, if any: a reset is owed."""
        with self._lock:
            if ids:
                self._losses.append(set(ids))

    def __len__(self) -> int:
        return len(self._returned)

    @property
    def losses(self) -> list[set[str]]:
        """What was lost each time: a reset for each is owed to who was there all the time."""
        with self._lock:
            return list(self._losses)

    @property
    def lost(self) -> set[str]:
        return set().union(*self.losses)

    @property
    def ids(self) -> list[str]:
        """In the order of their positions."""
        with self._lock:
            return sorted(self._returned, key=position_of)

    @property
    def payloads(self) -> dict[str, str]:
        with self._lock:
            return dict(self._returned)

    @property
    def doubtful(self) -> list[str]:
        with self._lock:
            return list(self._unsure)


@dataclass
class Delivery:
    """One client's view, judged.

    The client is owed everything newer than the id of its first `stream-open`. At a `stream-reset`
    what lies between its cursor and the reset's id is forgiven and listed in `skipped`; after a
    reset the order starts anew at the reset's id.

    Where it is said what was lost, nothing else is forgiven. What was lost is where a reset stands
    in its place: behind all older and before all newer that the client saw. A client whose newest
    was lost may be sent back by the reset: from there on it is owed again what was kept, once.
    """

    sent: SentLog
    seen: Sequence[Seen]
    missing: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    resets: int = 0

    def __post_init__(self) -> None:
        self._ids = self.sent.ids
        self._lost = self.sent.lost
        self._payloads = self.sent.payloads
        self._doubtful = self.sent.doubtful
        self._got: set[str] = set()
        self._forgiven: set[str] = set()
        self._first: tuple[int, int] | None = None
        self._cursor: tuple[int, int] = (0, 0)
        # The newest event so far, by its position and its id.
        self._newest: tuple[int, int] = (0, 0)
        self._newest_id = ""
        # Since the last reset: the newest before it, until a newer one comes.
        self._reset_after: tuple[int, int] | None = None
        for event in self.seen:
            if event.type == "stream-open":
                if self._first is None:
                    self._first = self._cursor = self._newest = position_of(event.last_event_id)
            elif event.type == "stream-reset":
                self._take_reset(position_of(event.last_event_id))
            elif event.type != "stream-end":
                self._take(event)
        self._forgive_lost(before=None)
        self._conclude()

    def _take_reset(self, to: tuple[int, int]) -> None:
        self.resets += 1
        forgivable = self._lost or self._ids
        self._forgiven |= {i for i in forgivable if self._cursor < position_of(i) <= to}
        if to < self._cursor and self._newest_id in self._lost:
            self._go_back(to)
        if self._reset_after is None:
            self._reset_after = self._newest
        self._cursor = to

    def _go_back(self, to: tuple[int, int]) -> None:
        losses = self.sent.losses
        by_then = next(n for n, lost in enumerate(losses, 1) if self._newest_id in lost)
        gone = set().union(*losses[:by_then])
        again = {i for i in self._got - gone if position_of(i) > to}
        self._got -= again
        # A later loss may have taken these before they could be shown again.
        self._forgiven |= again & self._lost

    def _take(self, event: Seen) -> None:
        event_id = event.last_event_id
        if event_id in self._got:
            self.repeated.append(event_id)
            return
        self._got.add(event_id)
        if event_id not in self._payloads:
            if event.data in self._doubtful:
                self._doubtful.remove(event.data)
            else:
                self.foreign.append(event_id)
        elif self._payloads[event_id] != event.data:
            self.foreign.append(event_id)
        position = position_of(event_id)
        if self._first is None or position <= self._cursor:
            self.out_of_order.append(event_id)
        self._cursor = position
        if position > self._newest:
            self._forgive_lost(before=position)
            self._newest, self._newest_id = position, event_id

    def _forgive_lost(self, *, before: tuple[int, int] | None) -> None:
        """What was lost in the very place where a reset stood."""
        if self._reset_after is None:
            return
        self._forgiven |= {
            i
            for i in self._lost
            if self._reset_after < position_of(i) and (before is None or position_of(i) < before)
        }
        self._reset_after = None

    def _conclude(self) -> None:
        first = self._first
        if first is None:
            self.missing = self._ids
            return
        owed = [i for i in self._ids if position_of(i) > first and i not in self._got]
        self.skipped = [i for i in owed if i in self._forgiven]
        self.missing = [i for i in owed if i not in self._forgiven]

    def verdict(self) -> dict[str, object]:
        return {
            "sent": len(self.sent),
            "seen": len(self.seen),
            "missing": [*self.missing[:5], len(self.missing)],
            "repeated": [*self.repeated[:5], len(self.repeated)],
            "out of order": [*self.out_of_order[:5], len(self.out_of_order)],
            "foreign": [*self.foreign[:5], len(self.foreign)],
            "resets": self.resets,
            "skipped": len(self.skipped),
        }

    def assert_exactly_once(self, *, resets: int = 0) -> None:
        """Missing 0, repeated 0, out of order 0, foreign 0, and that many resets."""
        faults = self.missing or self.repeated or self.out_of_order or self.foreign
        assert not faults, self.verdict()
        assert self.resets == resets, self.verdict()


def assert_exactly_once(sent: SentLog, clients: Iterable[Sequence[Seen]]) -> None:
    for seen in clients:
        Delivery(sent, seen).assert_exactly_once()
