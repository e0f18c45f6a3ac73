"""A subscriber: what one open response has been given, and what it gets next.

WAITING     nothing is known of the log yet; the first block is open
REPLAYING   reads the log, page by page, the next one when the last is written
LIVE        stands exactly where the hub's feed of its stream stands; it may rest there: while
            nothing is unsent, publications are written to it past its backlog
CLOSED      is out of the hub; what closed() says is final

The hub moves a subscriber from state to state; the writer of its response takes the frames.
"""

from __future__ import annotations

import enum
import math
import random
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ..config import PAGE_EVENTS, USER_TIMEOUT_SLACK, StreamConfig, check_duration
from .event import KEEP_ALIVE, open_frame, reset_frame
from .gap import Gap, cursor_ttl_of, find_gap
from .history import HistoryPage, HistoryRequest, HistoryRun
from .publication import NO_TAG, Position, Publication
from .replay import Replay

__all__ = [
    "EXPIRY_SLACK",
    "CloseReason",
    "Limits",
    "Outgoing",
    "Pacing",
    "State",
    "Subscriber",
    "Writer",
]


# Seconds that the expiry of a log may be off, between this process's clock and the server's.
EXPIRY_SLACK = 1.0
# Seconds that a write under way gets when the server stops. With two looks of the listener, 0.25 s
# apart, and two of uvicorn's, 0.1 s apart, that server is gone within 1 s.
_SHUTDOWN_GRACE = 0.2
# Milliseconds in an int of C.
_MOST_USER_TIMEOUT = 2**31 - 1


class State(enum.IntEnum):
    WAITING = 0
    REPLAYING = 1
    LIVE = 2
    CLOSED = 3


class CloseReason(enum.StrEnum):
    """Why a response ended."""

    DISCONNECT = "disconnect"
    END = "end"
    OVERFLOW = "overflow"
    TIMEOUT = "timeout"
    LIFETIME = "lifetime"
    SHUTDOWN = "shutdown"
    FAILED = "failed"

    @property
    def is_complete(self) -> bool:
        """Whether the response ends as one that is complete: nothing else may look like it.

        Clients that aren't an EventSource take what they have for all of it then.
        """
        return self is CloseReason.END

    @property
    def is_cut(self) -> bool:
        """Whether it is broken off, by us."""
        return not self.is_complete and self is not CloseReason.DISCONNECT

    @property
    def is_abrupt(self) -> bool:
        """Whether what is unsent is dropped: the client doesn't read, or the writer has failed."""
        return self in (CloseReason.OVERFLOW, CloseReason.TIMEOUT, CloseReason.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds that all subscribers of a hub share; see StreamConfig."""

    max_backlog: int
    max_backlog_bytes: int
    page_events: int
    cursor_ttl: float

    @classmethod
    def of(cls, config: StreamConfig) -> Limits:
        """Those of a configuration."""
        return cls(
            max_backlog=config.max_backlog,
            max_backlog_bytes=config.max_backlog_bytes,
            page_events=PAGE_EVENTS,
            cursor_ttl=cursor_ttl_of(config),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """The times of one response, in seconds of the hub's clock.

    Attributes:
        retry: milliseconds, for the ``retry:`` line.
        keep_alive_interval: silence after which a comment is sent.
        write_timeout: how long one write may take.
        ends_at: when the response ends because of its age.
    """

    retry: int
    keep_alive_interval: float
    write_timeout: float
    ends_at: float

    @classmethod
    def of(cls, config: StreamConfig, now: float, keep_alive_interval: float | None) -> Pacing:
        """Those of a response that opens now; with the configuration's interval for None.

        Raises:
            ValueError, TypeError: keep_alive_interval is no duration.
        """
        if keep_alive_interval is not None:
            check_duration("keep_alive_interval", keep_alive_interval)
        ends_at = math.inf
        if config.max_lifetime is not None:
            ends_at = now + config.max_lifetime * random.uniform(0.8, 1.0)
        return cls(
            retry=round(random.uniform(*config.retry_interval) * 1000),
            keep_alive_interval=keep_alive_interval or config.keep_alive_interval,
            write_timeout=config.write_timeout,
            ends_at=ends_at,
        )

    @property
    def user_timeout(self) -> int:
        """Milliseconds that a client may let TCP wait for it (RFC 5482).

        What is written is mostly the kernel's at once, and it would go on trying for a quarter of
        an hour: a client that vanished is written a keep-alive, and given up when a write may take
        no longer. A little later, so that we are first to notice who doesn't take a write, and can
        say so. 0 would mean the kernel's own.
        """
        seconds = self.write_timeout + USER_TIMEOUT_SLACK
        return min(round(seconds * 1000), _MOST_USER_TIMEOUT)


class Writer(Protocol):
    """The shell's side of a subscriber.

    Attributes:
        writes_at_once: whether its subscriber may rest: then write() may be called.
        is_chunked: whether what write() is given has to be a chunk, since nobody else makes it one.
    """

    writes_at_once: bool
    is_chunked: bool

    def wake(self) -> None:
        """There is something to take, or something to cut off."""

    def write(self, data: bytes) -> bool:
        """Writes to a client that rests; False if that blocks: then the writer keeps the rest."""


class Outgoing(NamedTuple):
    """All that a writer has to know: frames to write, then whether that is the end."""

    frames: list[bytes]
    closed: CloseReason | None


class Subscriber:
    """One open response.

    Args:
        stream_id: its stream.
        cursor: the position to resume after; None for a newcomer.
        replay: how many of the newest events a newcomer gets, or "all".
        event_name: the name of the events that were sent without one; None leaves them unnamed.
        pacing: None for a reader inside the process, which needs no first block, no keep-alive
            and no timeouts.
    """

    __slots__ = (
        "_backlog",
        "_closed",
        "_live_bytes",
        "_pacing",
        "_reads_from_before",
        "_reset",
        "_stopped_at",
        "_told",
        "_written_at",
        "confirmed_at",
        "event_name",
        "expires_at",
        "is_aborted",
        "is_caught_up",
        "is_reading",
        "is_resting",
        "is_stale",
        "known",
        "limits",
        "live_events",
        "look_at",
        "position",
        "replay",
        "resets",
        "server",
        "start",
        "state",
        "stream_id",
        "waiting_since",
        "writer",
        "writing_since",
    )

    def __init__(
        self,
        stream_id: str,
        writer: Writer,
        limits: Limits,
        *,
        cursor: Position | None,
        replay: Replay,
        event_name: str | None,
        pacing: Pacing | None,
        now: float,
    ) -> None:
        self.stream_id = stream_id
        self.writer = writer
        self.limits = limits
        self.replay = replay
        self.event_name = event_name
        self.state = State.WAITING
        # Of the newest publication that was queued, or the cursor. While LIVE: the feed's.
        self.position = cursor
        # When the position was last known to be the newest there is, and when the log expires by
        # itself if it stays that.
        self.confirmed_at = now
        self.expires_at: float | None = None
        # A read is asked for or under way; its answer is stale if it began before the channel
        # was subscribed.
        self.is_reading = False
        self.is_stale = False
        # The feed's position when that read began.
        self.known: Position | None = None
        # It is LIVE, all is written, and the feed writes to it directly.
        self.is_resting = False
        # The last page went up to the newest entry; since when the feed is awaited there.
        self.is_caught_up = False
        self.waiting_since = 0.0
        # Just before the first event that the response carries, once that is known.
        self.start: Position | None = None
        self._pacing = pacing
        self._backlog: list[bytes] = [b"retry: %d\n" % pacing.retry] if pacing else []
        # Of the backlog, what was queued while LIVE: only that is bounded.
        self.live_events = 0
        self._live_bytes = 0
        # A gap that waits for the log to be read from its start, and the cursor that had it.
        self._reset: tuple[Gap, Position] | None = None
        # How many it was told.
        self.resets = 0
        # The cursor that had the last one, and what the log had come to by then: the holes before
        # that are told, and where the log goes on past that cursor's life is the same gap, as
        # long as nothing that was sent since can have been missed.
        self._told: tuple[Position, tuple[int, int]] | None = None
        # The page under way was asked for before the connection was lost.
        self._reads_from_before = False
        self._closed: CloseReason | None = None
        # Who serves it, where that can be seen; and since when that server stops.
        self.server: object = None
        self._stopped_at: float | None = None
        # A write under way has to be cut off: its client doesn't read.
        self.is_aborted = False
        self._written_at = now
        # When the writer took frames that it hasn't yet come back from writing.
        self.writing_since: float | None = None
        # When the hub looks at its times next; inf for never.
        self.look_at = float("inf")

    @property
    def closed(self) -> CloseReason | None:
        """Why it is CLOSED; None while it is open."""
        return self._closed

    @property
    def is_response(self) -> bool:
        """Whether it is a client's response, as opposed to a reader inside the process."""
        return self._pacing is not None

    @property
    def user_timeout(self) -> int:
        """Milliseconds that its client may let TCP wait for it; 0 for as long as that does."""
        return self._pacing.user_timeout if self._pacing is not None else 0

    @property
    def is_gone(self) -> bool:
        """Whether it needs nothing of the log any more."""
        return self.state is State.CLOSED

    @property
    def is_idle(self) -> bool:
        """Everything queued is written, the first block aside."""
        return self.start is None or (not self._backlog and self.writing_since is None)

    @property
    def begins_now(self) -> bool:
        """Whether nothing that was sent before it came is for it."""
        return self.position is None and self.replay == 0

    def begin(self, position: Position) -> None:
        """It begins where the feed stands; the log has nothing for it."""
        self.state = State.REPLAYING
        self._open(position)
        self.position = position

    # Reading the log

    def request(self) -> HistoryRequest:
        """The page that it needs next."""
        limit = self.limits.page_events
        if self._reset is not None:
            return HistoryRequest.whole(self.stream_id, limit=limit)
        if self.position is not None:
            return HistoryRequest.after(self.stream_id, self.position, limit=limit)
        if self.replay == "all":
            return HistoryRequest.whole(self.stream_id, limit=limit)
        return HistoryRequest.newest(self.stream_id, self.replay, limit=limit)

    def receive_history(self, page: HistoryPage, now: float, *, asked_at: float) -> None:
        """Queues what a page shows, with a reset in front of every gap in it.

        After it the subscriber is caught up, or needs another page, or has met the end.

        Args:
            asked_at: when the page was asked for.
        """
        self.is_reading = False
        self.state = State.REPLAYING
        if self._reset is not None or self.position is None:
            self._begin(page)
        elif not self._resume(self.position, page, now):
            return
        assert self.position is not None
        # Foreign entries before a page's start are none of its events.
        start = self.position[:2]
        self._queue_runs([run for run in page.runs if run.last[:2] > start])
        self.is_caught_up = page.is_complete
        if page.is_complete:
            self._arrive(page, asked_at)
        if self._reads_from_before:
            self._reads_from_before = False
            self._told = None

    def _begin(self, page: HistoryPage) -> None:
        """Takes the page's start as the position, which is a newcomer's or follows a gap."""
        start = page.start
        # A newcomer who wants all of it is told how much of that is gone.
        is_cut = self.position is None and self.replay == "all"
        is_cut = is_cut and start != Position.after_loss(start.epoch)
        self._open(start, trimmed=start.seq if is_cut else 0)
        if self._reset is not None:
            gap, requested = self._reset
            self._reset = None
            self._told = (requested, page.generated or (0, 0))
            self._queue_reset(gap, requested, start, page.runs)
        self.position = start

    def _resume(self, cursor: Position, page: HistoryPage, now: float) -> bool:
        """Whether the page can be queued: it follows the cursor, or is the whole log."""
        cursor = self._unless_expired(cursor, page, now)
        gap = find_gap(cursor, page, cursor_ttl=self.limits.cursor_ttl)
        if gap is None and page.at_cursor_is_end:
            # Its client has seen the end: nothing is left to say.
            self._closed = CloseReason.END
            return False
        self._open(cursor)
        if gap is not None:
            self._reset = (gap, cursor)
            if page.newest is not None and not page.oldest_is_first:
                return False
            self._begin(page)
        elif page.runs and cursor.is_start:
            self.position = Position.start(page.runs[0].first.epoch)
        else:
            self.position = cursor
        return True

    def _unless_expired(self, cursor: Position, page: HistoryPage, now: float) -> Position:
        """The cursor; or the start after it, where its log expired by itself since.

        As old as the last confirmation: whatever was sent after that is in the log, as long as
        it isn't older than a log lives.
        """
        if self.expires_at is None or now < self.expires_at - EXPIRY_SLACK:
            return cursor
        if page.newest is not None and page.newest.epoch == cursor.epoch:
            return cursor
        return Position.start(page.clock - round((now - self.confirmed_at) * 1e6))

    def _queue_runs(self, runs: list[HistoryRun]) -> None:
        assert self.position is not None
        is_broken = False
        requested = position = self.position
        for run in runs:
            if not run.first.follows(position) and not self._was_told(
                position, run.first[:2], is_first=run.previous == NO_TAG
            ):
                is_broken = True
            position = run.last
            if not run.frames:
                continue
            if is_broken:
                start = run.first.before(run.previous)
                self._queue_reset(Gap.TRIMMED, requested, start, [run])
                is_broken = False
            self._backlog += run.named(self.event_name)
            requested = position
            if run.is_end:
                self._closed = CloseReason.END
        if is_broken:
            self._queue_reset(Gap.TRIMMED, requested, position, [])
        if runs:
            self.position = position
            self.expires_at = None

    def _arrive(self, page: HistoryPage, asked_at: float) -> None:
        """Stands where the log stands, which is the cursor's own place if nothing is newer."""
        assert self.position is not None
        top = page.top
        generated = page.generated
        if (
            page.is_cut_off
            and generated is not None
            and generated > self.position[:2]
            and not self._was_told(self.position, generated, is_first=page.is_given_up)
        ):
            # The newest of all was deleted, or lost, before it could be shown.
            self._queue_reset(Gap.TRIMMED, self.position, top, [])
        self.position = top
        self.confirmed_at = asked_at
        self.expires_at = None if page.ttl is None or top.is_start else asked_at + page.ttl

    def _was_told(self, end: Position, following: tuple[int, int], *, is_first: bool) -> bool:
        """Whether the gap between the two is what it was told of.

        Args:
            following: where the log goes on.
            is_first: whether a life begins there.
        """
        if self._told is None:
            return False
        cursor, generated = self._told
        return following <= generated or (is_first and end.epoch <= cursor.epoch < following[0])

    def _queue_reset(
        self, gap: Gap, requested: Position, start: Position, following: list[HistoryRun]
    ) -> None:
        self.resets += 1
        first = next((str(run.first) for run in following if run.frames), None)
        self._backlog.append(
            reset_frame(str(start), reason=gap, requested=str(requested), first=first)
        )

    def _open(self, position: Position, *, trimmed: int = 0) -> None:
        if self.start is None:
            self.start = position
            if self._pacing:
                self._backlog.append(open_frame(str(position), trimmed=trimmed))

    # Live

    def enter_live(self) -> None:
        """It stands where the feed stands: from now on the feed's publications are its own."""
        assert self.state is State.REPLAYING
        self.state = State.LIVE

    def leave_live(
        self, position: Position | None, *, confirmed_at: float, expires_at: float | None
    ) -> None:
        """Back to the log, from the position that the feed had until now."""
        assert self.state is State.LIVE
        self.state = State.REPLAYING
        self.is_caught_up = False
        if position is not None and position != self.position:
            self.position = position
            self._told = None
        self.confirmed_at = confirmed_at
        self.expires_at = expires_at

    def connection_lost(self) -> None:
        """Something may be sent unheard from now on, and its loss would be another gap."""
        self._told = None
        self._reads_from_before = self.is_reading

    def receive(self, publication: Publication) -> bool:
        """Queues a live publication; False if the backlog's bounds don't let it."""
        if self.live_events:
            size = self._live_bytes + len(publication.named(self.event_name))
            if self.live_events >= self.limits.max_backlog or size > self.limits.max_backlog_bytes:
                return False
        self.queue(publication)
        return True

    def queue(self, publication: Publication) -> None:
        """Queues a live publication, whatever the bounds."""
        frame = publication.named(self.event_name)
        self._backlog.append(frame)
        self.live_events += 1
        self._live_bytes += len(frame)

    # The writer's side

    def take(self, now: float) -> Outgoing:
        """Everything that is to be written now. Taking again says that it was written."""
        # Another list even where there is nothing: who took it looks at it while others queue.
        frames, self._backlog = self._backlog, []
        self.live_events = self._live_bytes = 0
        if frames or self._closed is not None:
            # The end of a response is a write as well.
            self._written_at = self.writing_since = now
        else:
            self.writing_since = None
        return Outgoing(frames, self._closed)

    def block(self, now: float) -> None:
        """What it was given while it rested is not written yet."""
        if self.writing_since is None:
            self._written_at = self.writing_since = now

    @property
    def may_rest(self) -> bool:
        """Whether the feed's publications can be written past its backlog."""
        return (
            self.state is State.LIVE
            and self.writer.writes_at_once
            and not self._backlog
            and self.writing_since is None
        )

    def close(self, reason: CloseReason) -> None:
        """Ends it, once: the first reason stays. An abrupt one drops what is unsent."""
        if self.state is State.CLOSED:
            return
        self.state = State.CLOSED
        self._closed = self._closed or reason
        if reason.is_abrupt:
            self._backlog = []
            self.is_aborted = self.writing_since is not None

    def abort(self) -> None:
        """What is under way is not worth finishing: its writer cuts it off when it is woken."""
        self.is_aborted = True
        self._backlog = []

    def leave(self) -> None:
        """Its writer has gone: nothing is left to be written or cut off."""
        self.writing_since = None
        self._backlog = []

    def stop(self, now: float) -> None:
        """Its server has begun to stop, and waits for no write for long."""
        if self._stopped_at is None:
            self._stopped_at = now

    def tick_closed(self, now: float) -> float:
        """Cuts off a last write that takes too long; says when to look again, inf for never."""
        pacing = self._pacing
        if pacing is None or self.writing_since is None or self.is_aborted:
            return float("inf")
        due = self.writing_since + pacing.write_timeout
        if self._stopped_at is not None:
            due = min(due, self._stopped_at + _SHUTDOWN_GRACE)
        self.is_aborted = now >= due
        return float("inf") if self.is_aborted else due

    def tick(self, now: float, *, delivered_at: float) -> tuple[CloseReason | None, float]:
        """Queues a keep-alive if one is due; says if it must close, and when to look again.

        Args:
            delivered_at: when its feed last gave something to those that rest.
        """
        pacing = self._pacing
        if pacing is None:
            return None, float("inf")
        if now >= pacing.ends_at:
            return CloseReason.LIFETIME, now
        if self.writing_since is not None:
            due = self.writing_since + pacing.write_timeout
            # Most writes are over long before: then a keep-alive is due earlier.
            next_look = min(due, now + pacing.keep_alive_interval, pacing.ends_at)
            return (CloseReason.TIMEOUT if now >= due else None), next_look
        next_look = min(
            now + pacing.keep_alive_interval, now + pacing.write_timeout, pacing.ends_at
        )
        if self.is_resting and delivered_at > self._written_at:
            self._written_at = delivered_at
        keep_alive_at = self._written_at + pacing.keep_alive_interval
        if self._backlog:
            # If nobody comes for it: a response that its server has forgotten.
            is_forgotten = now >= keep_alive_at + pacing.write_timeout
            return (CloseReason.TIMEOUT if is_forgotten else None), next_look
        if now >= keep_alive_at:
            self._backlog.append(KEEP_ALIVE)
            self._written_at = now
            return None, next_look
        return None, min(keep_alive_at, next_look)

    @property
    def has_backlog(self) -> bool:
        return bool(self._backlog)
