"""The checker: what was sent against what a client saw."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
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

    def returned(self, event_id: str, data: str) -> None:
        with self._lock:
            assert event_id not in self._returned, f"the id {event_id} was returned twice"
            self._returned[event_id] = data

    def unsure(self, data: str) -> None:
        """A send that raised: it may be delivered, once, but need not be."""
        with self._lock:
            self._unsure.append(data)

    def __len__(self) -> int:
        return len(self._returned)

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
        ids = self.sent.ids
        payloads = self.sent.payloads
        doubtful = self.sent.doubtful
        cursor: tuple[int, int] | None = None
        got: set[str] = set()
        forgiven: set[str] = set()
        first: tuple[int, int] | None = None
        for event in self.seen:
            event_id = event.last_event_id
            if event.type == "stream-open":
                if first is None:
                    first = cursor = position_of(event_id)
                continue
            if event.type == "stream-reset":
                self.resets += 1
                to = position_of(event_id)
                forgiven |= {i for i in ids if (cursor or (0, 0)) < position_of(i) <= to}
                cursor = to
                continue
            if event.type == "stream-end":
                continue
            if event_id in got:
                self.repeated.append(event_id)
                continue
            got.add(event_id)
            if event_id not in payloads:
                if event.data in doubtful:
                    doubtful.remove(event.data)
                else:
                    self.foreign.append(event_id)
            elif payloads[event_id] != event.data:
                self.foreign.append(event_id)
            if cursor is None or position_of(event_id) <= cursor:
                self.out_of_order.append(event_id)
            cursor = position_of(event_id)
        owed = [i for i in ids if first is not None and position_of(i) > first]
        self.skipped = [i for i in owed if i in forgiven and i not in got]
        self.missing = [i for i in owed if i not in got and i not in forgiven]
        if first is None:
            self.missing = ids

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
