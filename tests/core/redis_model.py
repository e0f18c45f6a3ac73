"""A model of one stream in Redis: its log, and the messages on their way to a listener."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from streamy_redis.core.event import END
from streamy_redis.core.history import HistoryPage, HistoryRequest, HistoryRun
from streamy_redis.core.publication import NO_TAG, Position, Publication

# Stands for a publication that no one can know of.
UNKNOWN = "unknown"


class Entry(NamedTuple):
    """An entry of the log."""

    position: Position
    # None where it is foreign.
    publication: Publication | None
    previous: str

    @property
    def is_end(self) -> bool:
        return self.publication is not None and self.publication.is_end


@dataclass
class RedisModel:
    """What publish.lua and read.lua do, in Python; the tests of the scripts hold both to it."""

    history_ttl: float = 3600.0
    # Microseconds; no two commands have the same.
    clock: int = 1_800_000_000_000_000
    log: list[Entry] = field(default_factory=list)
    generated: tuple[int, int] | None = None
    expires_at: int | None = None
    # Published and not yet heard by the listener; emptied when its connection is lost.
    in_flight: deque[bytes] = field(default_factory=deque)
    is_subscribed: bool = False
    # For each publication ever made, by tag: the tag of the one that it follows in the log, or
    # in a new life of the one that was sent last. Tags are unique here.
    follows: dict[str, str] = field(default_factory=dict)
    # What the sender remembers; None when it died since.
    witness: Position | None = None
    # The events that are gone, by tag, and with which loss they went, counted from 1.
    lost: dict[str, int] = field(default_factory=dict)
    losses: int = 0
    _sent_last: str = ""
    _has_ended_a_life: bool = False
    _was_rolled_back: bool = False
    _tags: int = 0

    def advance(self, seconds: float) -> None:
        self.clock += round(seconds * 1e6)

    def _expire(self) -> None:
        if self.expires_at is not None and self.clock >= self.expires_at:
            self.flush()
            self._has_ended_a_life = True

    def send(self, *, is_end: bool = False, remembers: bool = True) -> str | None:
        """Publishes one event; its tag, or None if the stream has ended.

        Args:
            remembers: whether it is the sender that has sent before.
        """
        self._expire()
        if self.is_ended:
            return None
        self._tags += 1
        tag = f"{self._tags:08x}"
        witness = self.witness if remembers else None
        is_lost = self._has_lost(witness)
        is_given_up = self.generated is not None and self.generated[1] == 0
        newest = None if is_lost else self.newest
        if newest is not None:
            position = Position(newest.epoch, newest.seq + 1, tag)
        elif self.generated is not None and is_given_up and not is_lost:
            position = Position(self.generated[0], 2, tag)
        else:
            position = Position(self._next_epoch(witness), 2 if is_lost else 1, tag)
        event = f"event: {END}\n" if is_end else ""
        frame = f"{event}data: {tag}\nid: {position}\n\n".encode()
        publication = Publication.parse(frame)
        assert publication is not None
        self.follows[tag] = self.newest_tag if newest else self._sent_last
        previous = newest.tag if newest else NO_TAG
        self.log.append(Entry(position, publication, previous))
        self.generated = position[:2]
        self.expires_at = self.clock + round(self.history_ttl * 1e6)
        self._sent_last = tag
        if remembers:
            self.witness = position
        if self.is_subscribed:
            self.in_flight.append(frame)
        self.clock += 1
        return tag

    def _next_epoch(self, witness: Position | None) -> int:
        known = [each[0] + 1 for each in (self.generated, witness) if each is not None]
        return max([self.clock, *known])

    def _has_lost(self, witness: Position | None) -> bool:
        if witness is None or self.generated is None:
            return False
        if witness.epoch != self.generated[0]:
            return witness.epoch > self.generated[0]
        if witness.seq > self.generated[1]:
            return True
        for entry in self.log:
            if entry.position[:2] == witness[:2]:
                return entry.position.tag != witness.tag
            if entry.position > witness:
                is_next = entry.position.follows(witness) and entry.publication is not None
                return is_next and entry.previous != witness.tag
        return False

    def let_the_sender_die(self) -> None:
        """Nobody remembers any more what only an old master had."""
        if self._has_lost(self.witness):
            self._sent_last = UNKNOWN
            self._sent_last = self.newest_tag
        self.witness = None

    def add_foreign(self) -> None:
        """XADD of something else, in this life of the stream."""
        self._expire()
        newest = self.newest
        if newest is not None:
            position = Position(newest.epoch, newest.seq + 1, NO_TAG)
            self.log.append(Entry(position, None, NO_TAG))
            self.generated = position[:2]

    @property
    def newest_tag(self) -> str:
        """Of the newest publication; of the one that was sent last, where the log has none."""
        tags = [entry.position.tag for entry in self.log if entry.publication]
        return tags[-1] if tags else self._sent_last

    @property
    def newest(self) -> Position | None:
        """What the next event can follow."""
        newest = self.log[-1].position if self.log else None
        return newest if newest is not None and newest[:2] == self.generated else None

    @property
    def is_ended(self) -> bool:
        return any(entry.is_end for entry in self.log)

    def _lose(self, entries: list[Entry]) -> None:
        self.losses += 1
        self.lost |= {entry.position.tag: self.losses for entry in entries if entry.publication}

    def trim(self, keep: int) -> None:
        self._lose(self.log[:-keep] if keep else self.log)
        self.log = self.log[-keep:] if keep else []
        if not keep:
            self._forget()

    def delete_newest(self) -> None:
        """XDEL of the newest entry: XADD can't go on from the one before it."""
        if self.log:
            self._lose([self.log.pop()])
            self._forget()

    def delete_one(self) -> None:
        """XDEL of an entry that others follow: a hole."""
        if len(self.log) > 1:
            self._lose([self.log.pop((len(self.log) - 1) // 2)])

    def flush(self) -> None:
        self._lose(self.log)
        self.log, self.generated, self.expires_at = [], None, None
        self._forget()

    def _forget(self) -> None:
        # Who stands before a first event, as everybody does after an expiry or where nothing can
        # follow what is there, can't know of one that was deleted at once: the exception that
        # the design documents. And where entries are gone that took the places of others, nobody
        # has a tag left that would tell.
        if self._has_ended_a_life or self._was_rolled_back:
            self._sent_last = UNKNOWN
        self._has_ended_a_life = True

    def roll_back(self, count: int) -> None:
        """A failover to a replica that lagged."""
        self._was_rolled_back = True
        self._lose(self.log[-count:])
        self.log = self.log[: max(0, len(self.log) - count)]
        self.generated = self.log[-1].position[:2] if self.log else None
        if not self._has_lost(self.witness):
            # What was sent only to the old master has left no trace that anybody could find.
            self._sent_last = UNKNOWN
            self._sent_last = self.newest_tag
        if not self.log:
            self.expires_at = None

    def read(self, request: HistoryRequest) -> HistoryPage:
        self._expire()
        self.clock += 1
        if not self.is_ended and self._has_lost(request.witness):
            self.generated = (self._next_epoch(request.witness), 0)
        key = request.key
        at_cursor = None
        at_cursor_is_end = False
        holds_ours = any(entry.publication for entry in self.log)
        entries = list(self.log) if holds_ours or key.start == "after" else []
        if key.start == "after":
            cursor = tuple(map(int, key.cursor.split("-")))
            for entry in entries:
                if entry.position[:2] == cursor:
                    at_cursor = entry.position.tag
                    at_cursor_is_end = entry.is_end
            entries = [e for e in entries if e.position[:2] > cursor]
        elif key.start == "newest":
            events = [e for e in entries if e.publication and not e.is_end]
            kept = events[-key.newest :] if key.newest else []
            kept += [e for e in entries if e.is_end]
            entries = entries[entries.index(kept[0]) :] if kept else []
        page = entries[: request.count or key.limit]
        is_complete = len(page) == len(entries)
        sizes = [len(entry.publication.frame) for entry in entries if entry.publication]
        return HistoryPage(
            clock=self.clock,
            ttl=(self.expires_at - self.clock) / 1e6 if self.expires_at is not None else None,
            generated=self.generated,
            newest=self.log[-1].position if holds_ours else None,
            oldest=self.log[0].position if holds_ours else None,
            at_cursor=at_cursor,
            at_cursor_is_end=at_cursor_is_end,
            runs=_runs(page),
            is_complete=is_complete,
            entry_size=sum(sizes) // len(sizes) if sizes and not is_complete else 0,
        )


def _runs(entries: list[Entry]) -> list[HistoryRun]:
    runs: list[list[Entry]] = []
    for entry in entries:
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and last.publication is not None
            and entry.publication is not None
            and entry.position.follows(last.position)
            and not last.is_end
        ):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return [
        HistoryRun(
            run[0].position,
            run[-1].position,
            run[0].previous,
            [entry.publication.frame for entry in run if entry.publication],
            run[-1].is_end,
        )
        for run in runs
    ]
