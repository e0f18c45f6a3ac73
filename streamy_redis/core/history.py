"""History: what one read of a stream's log says."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from .publication import LEAST_EPOCH, NO_TAG, Position, named_frame, tag_of_frame

__all__ = [
    "HistoryKey",
    "HistoryPage",
    "HistoryRequest",
    "HistoryRun",
    "Recipient",
    "StreamInfo",
]


@dataclass(frozen=True, slots=True)
class HistoryRun:
    """Publications that stand in the log one right behind the other, written as they are.

    A foreign entry is a run of its own, without frames.

    Attributes:
        first: the position of the first of them; with NO_TAG where it is foreign.
        last: the position of the last.
        previous: the tag of the entry before the first.
        frames: theirs; empty where it is foreign.
        is_end: whether the last is the end.
    """

    first: Position
    last: Position
    previous: str = NO_TAG
    frames: list[bytes] = field(default_factory=list)
    is_end: bool = False
    # The run that this is the end of: what it does for one reader it does for all.
    _whole: HistoryRun | None = field(default=None, compare=False, repr=False)
    # The frames with the name that a get_stream gave to unnamed events, by that name.
    _named: dict[str, list[bytes]] = field(default_factory=dict, init=False, compare=False)

    def named(self, event_name: str | None) -> list[bytes]:
        """The frames, each as Publication.named gives it."""
        if event_name is None:
            return self.frames
        if self._whole is not None:
            return self._whole.named(event_name)[-len(self.frames) :]
        if event_name not in self._named:
            name = event_name.encode()
            self._named[event_name] = [named_frame(frame, name) for frame in self.frames]
        return self._named[event_name]

    def tag_at(self, seq: int) -> str:
        """The tag of the entry there, which is one of this run's."""
        return tag_of_frame(self.frames[seq - self.first.seq]) if self.frames else NO_TAG

    def behind(self, seq: int) -> HistoryRun | None:
        """What of it is behind the entry there, which is one of this run's."""
        frames = self.frames[seq + 1 - self.first.seq :]
        if not frames:
            return None
        first = Position(self.first.epoch, seq + 1, tag_of_frame(frames[0]))
        whole = self._whole or self
        return HistoryRun(first, self.last, self.tag_at(seq), frames, self.is_end, whole)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """The answer to a HistoryRequest, all of one moment.

    Attributes:
        clock: the server's clock, microseconds.
        ttl: seconds until the log expires; None if it doesn't.
        generated: epoch and seq of the last entry that the log ever held; None without a key.
        newest: the last entry there is; None if the log holds nothing of ours.
        oldest: the first one, likewise.
        at_cursor: the tag of the entry at the cursor; NO_TAG if foreign, None if there is none.
        at_cursor_is_end: whether that entry is the end.
        runs: the entries after the cursor, or from the start that was asked for.
        is_complete: whether runs goes up to the newest.
        entry_size: bytes that an entry takes there, on the average; 0 if that isn't known.
    """

    clock: int
    ttl: float | None
    generated: tuple[int, int] | None
    newest: Position | None
    oldest: Position | None
    at_cursor: str | None
    at_cursor_is_end: bool
    runs: list[HistoryRun]
    is_complete: bool
    entry_size: int = 0

    @property
    def start(self) -> Position:
        """Just before the first publication; without one, where the page or the log ends."""
        for run in self.runs:
            if run.frames:
                return run.first.before(run.previous)
        if self.runs and not self.is_complete:
            return self.runs[-1].last
        return self.top

    @property
    def oldest_is_first(self) -> bool:
        """Whether runs begins with the oldest entry of the log."""
        return bool(self.runs and self.oldest and self.runs[0].first[:2] == self.oldest[:2])

    @property
    def length(self) -> int:
        """How many events it shows."""
        return sum(len(run.frames) for run in self.runs)

    @property
    def size(self) -> int:
        """The bytes of their frames."""
        return sum(sum(map(len, run.frames)) for run in self.runs)

    @property
    def has_foreign(self) -> bool:
        """Whether something in it is none of ours."""
        return not all(run.frames for run in self.runs)

    @property
    def top(self) -> Position:
        """What the next publication follows.

        That is the newest entry, or the start of another life: XADD can't go on from a log that
        was trimmed to nothing, or whose newest entry was deleted, and what follows a log that a
        reader has given up (seq 0) is in a life of its own.
        """
        if self.generated is None:
            return Position.start(self.clock)
        if self.is_given_up:
            return Position.after_loss(self.generated[0])
        if self.newest is not None and not self.is_cut_off:
            return self.newest
        return Position.start(max(self.clock, self.generated[0] + 1))

    @property
    def is_given_up(self) -> bool:
        """Whether a reader has given the log up for another life, which nothing stands in yet."""
        epoch, seq = self.generated or (0, 1)
        return seq == 0 and epoch >= LEAST_EPOCH

    @property
    def is_cut_off(self) -> bool:
        """Whether there was something newer than the newest entry."""
        return self.generated != (self.newest[:2] if self.newest else None)

    def as_of(self, summary: HistoryPage) -> HistoryPage | None:
        """This page at the moment of a summary; None if the log has changed in between."""
        if (self.generated, self.newest, self.oldest) != (
            summary.generated,
            summary.newest,
            summary.oldest,
        ):
            return None
        return dataclasses.replace(self, clock=summary.clock, ttl=summary.ttl)

    def shown_to(self, wanted: HistoryKey, *, read_for: HistoryKey) -> HistoryPage | None:
        """What a read for another place would have given; None if this page doesn't show that.

        Args:
            read_for: what this page is the answer to.
        """
        if not self.shows(wanted, read_for=read_for):
            return None
        if wanted == read_for or wanted.start == "all":
            return self
        return self._behind(wanted.place)

    def shows(self, wanted: HistoryKey, *, read_for: HistoryKey) -> bool:
        """Whether it holds all that decides about another place, and something behind it."""
        if wanted == read_for:
            return True
        # Nothing is older than a page that begins with the oldest entry, and not behind a cursor.
        has_all = self.oldest_is_first and self.at_cursor is None
        if wanted.start == "all":
            return has_all
        if not has_all and (read_for.start == "all" or wanted.place < read_for.place):
            return False
        return self.is_complete or wanted.place < self.runs[-1].last[:2]

    def _behind(self, cursor: tuple[int, int]) -> HistoryPage:
        at_cursor, is_end = None, False
        runs = []
        for run in self.runs:
            if run.first[:2] > cursor:
                runs.append(run)
            elif run.last[:2] >= cursor:
                at_cursor = run.tag_at(cursor[1])
                is_end = run.is_end and run.last[:2] == cursor
                rest = run.behind(cursor[1])
                runs += [rest] if rest is not None else []
        return dataclasses.replace(self, at_cursor=at_cursor, at_cursor_is_end=is_end, runs=runs)


class Recipient(Protocol):
    """Who waits for what a log says."""

    @property
    def is_gone(self) -> bool:
        """Whether it needs no answer any more."""


class HistoryKey(NamedTuple):
    """What makes two requests the same: one read answers both."""

    stream_id: str
    # "after" a cursor (inclusive, so that its tag can be compared), "newest" n events, or "all".
    start: Literal["after", "newest", "all"]
    cursor: str
    newest: int
    limit: int

    @property
    def place(self) -> tuple[int, int]:
        """The epoch and the seq of the cursor; of "all", what is older than any."""
        epoch, _, seq = self.cursor.partition("-")
        return (int(epoch), int(seq)) if epoch else (0, 0)


@dataclass(slots=True, eq=False)
class HistoryRequest:
    """A page of the log to be read, for everybody who waits for the same one.

    Attributes:
        recipients: those who wait for it, and what each of them wants.
        witness: what this process knows the log to hold; one that doesn't is given up for a new
            life of the stream before it is read.
        is_look: whether it asks what a page would be like, or if one that was kept still holds.
        count: entries of a page that is read as it is, since they are known to be small: Redis
            doesn't look at each, nor at their bytes. 0 where it does.
    """

    key: HistoryKey
    recipients: dict[Recipient, HistoryRequest] = field(default_factory=dict)
    witness: Position | None = None
    is_look: bool = False
    count: int = 0

    @property
    def is_for_summary(self) -> bool:
        return self.key.limit == 0

    @property
    def is_small(self) -> bool:
        """Whether it costs little by itself: a position check, or what a newcomer asks."""
        return not self.is_look and (self.is_for_summary or self.key.start == "newest")

    def look(self) -> HistoryRequest:
        """Asks for the summary only."""
        return HistoryRequest(self.key._replace(limit=0), is_look=True)

    def page(self, count: int) -> HistoryRequest:
        """Asks for the page."""
        return HistoryRequest(self.key, count=count)

    @classmethod
    def after(cls, stream_id: str, position: Position, *, limit: int) -> HistoryRequest:
        cursor = f"{position.epoch}-{position.seq}"
        return cls(HistoryKey(stream_id, "after", cursor, 0, limit))

    @classmethod
    def newest(cls, stream_id: str, count: int, *, limit: int) -> HistoryRequest:
        return cls(HistoryKey(stream_id, "newest", "", count, limit))

    @classmethod
    def whole(cls, stream_id: str, *, limit: int) -> HistoryRequest:
        return cls(HistoryKey(stream_id, "all", "", 0, limit))


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What Redis holds of a stream, as ``info`` returns it.

    Attributes:
        stream_id: the stream.
        exists: whether there is a history or an end.
        ended: whether it has ended.
        length: how many events the history holds, the end among them.
        first_event_id: id of the oldest, ``<epoch>-<seq>-<tag>``; None without history.
        last_event_id: id of the newest, a cursor for ``get_stream``; None without history.
        ttl: seconds until Redis forgets it, if no event comes; None without history.
    """

    stream_id: str
    exists: bool
    ended: bool
    length: int
    first_event_id: str | None
    last_event_id: str | None
    ttl: float | None
