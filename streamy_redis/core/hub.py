"""The hub: this process's subscribers, by stream.

A feed is one subscribed channel. Its position is the newest publication that was heard (or read)
there. Every subscriber that is LIVE stands exactly at that position, so a publication that
follows it goes to all of them as it is. Whatever else happens (a subscribe acknowledgement, a
hole, another epoch, a position check that differs) leads to one act: the subscribers leave LIVE
at the position they had, and read the log from there. Each joins the feed again when it stands
where the feed stands. The log decides; the hub only notices.

Inputs are what happened; outputs are drains: commands_to_send, requests_to_send, and the outbox.
Nothing here waits, so whoever holds the hub's lock never waits.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..config import CHECK_JITTER, LINGER_INTERVAL, StreamConfig
from .chunks import chunk
from .clock import ServerClock
from .descriptors import Descriptors
from .gap import cursor_ttl_of
from .history import HistoryPage, HistoryRequest
from .outbox import Delivery, Failure, Outbox
from .pages import PageLimits, Pages
from .publication import NO_TAG, Position, Publication, named_frame
from .stats import StreamStats
from .subscriber import EXPIRY_SLACK, CloseReason, Outgoing, State, Subscriber
from .witness import Witnesses

__all__ = ["Commands", "Hub"]

# Seconds until a SUBSCRIBE that wasn't acknowledged is sent again.
_SUBSCRIBE_TIMEOUT = 1.5
# Seconds that a feed may stand still short of a position that a subscriber read.
_JOIN_TIMEOUT = 0.5
# Seconds for which a feed's position is good enough for a newcomer, without a look at the log.
_FRESH = 1.0


class Commands(NamedTuple):
    """What the listener has to send, by stream ids."""

    subscribe: list[str]
    unsubscribe: list[str]


# The name that unnamed events are given, and whether they come as chunks.
_Form = tuple[str | None, bool]


def _form_of(subscriber: Subscriber) -> _Form:
    return subscriber.event_name, subscriber.writer.is_chunked


class _Feed:
    """One channel: its subscribers, and how far it was heard."""

    __slots__ = (
        "asked_at",
        "batch",
        "batch_bytes",
        "before_recent",
        "check_after",
        "confirmed_at",
        "delivered_at",
        "expires_at",
        "has_ended",
        "heard",
        "idle_since",
        "is_checking",
        "is_gone",
        "is_subscribed",
        "live",
        "name_bytes",
        "position",
        "recent",
        "recent_bytes",
        "replaying",
        "rested",
        "resting",
        "stream_id",
        "witness",
    )

    def __init__(self, stream_id: str, now: float, *, check_after: float) -> None:
        self.stream_id = stream_id
        # Seconds without a confirmation of its position until the log is compared.
        self.check_after = check_after
        # Between the acknowledgement of SUBSCRIBE and the loss of the connection.
        self.is_subscribed = False
        self.asked_at = now
        # None until something was heard or read since then.
        self.position: Position | None = None
        # What was heard last was its end.
        self.has_ended = False
        # The newest position that was heard on the channel, as opposed to read from the log.
        self.heard: Position | None = None
        # The newest that is known to have been in the log, whatever the log says now.
        self.witness: Position | None = None
        # Those that are LIVE with a backlog of their own.
        self.live: dict[Subscriber, None] = {}
        # Those that are LIVE and rest, by what they get of the same publications.
        self.resting: dict[_Form, dict[Subscriber, None]] = {}
        # What a name that one of those has asked for adds to a frame, at most.
        self.name_bytes = 0
        # The same as lists, until somebody comes or goes: each flush walks through them.
        self.rested: list[tuple[_Form, list[Subscriber]]] | None = None
        # What those that rest get at the next flush, and when they got something last.
        self.batch: list[Publication] = []
        self.batch_bytes = 0
        self.delivered_at = now
        # Those that are WAITING or REPLAYING.
        self.replaying: dict[Subscriber, None] = {}
        # What was heard while somebody replays: it closes the hole between page and feed.
        self.recent: deque[Publication] = deque()
        self.recent_bytes = 0
        # What the oldest of these follows; None if nothing was heard or read before it.
        self.before_recent: Position | None = None
        # When the position was last known to be the newest there is, and when the log expires by
        # itself if it stays that.
        self.confirmed_at = now
        self.expires_at: float | None = None
        self.is_checking = False
        self.idle_since = now
        # The hub has forgotten it.
        self.is_gone = False

    def know(self, position: Position) -> None:
        """The log held this: nobody may take its place."""
        has_entry = position.tag != NO_TAG
        if has_entry and (self.witness is None or position > self.witness):
            self.witness = position

    @property
    def is_empty(self) -> bool:
        return not (self.resting or self.live or self.replaying)

    def holds(self, subscriber: Subscriber) -> bool:
        """Whether it is registered, and doesn't rest."""
        return subscriber in self.replaying or subscriber in self.live

    def can_be_joined(self, now: float) -> bool:
        """Whether a newcomer can stand where it stands without a look at the log.

        Not where nobody else stands: one page costs little, and shows a log that was deleted.
        """
        is_fresh = now - self.confirmed_at <= _FRESH and not self.is_empty
        return self.position is not None and is_fresh and not self.has_ended

    def forget_batch(self) -> list[Publication]:
        batch, self.batch, self.batch_bytes = self.batch, [], 0
        return batch

    def rest(self, subscriber: Subscriber) -> None:
        self.resting.setdefault(_form_of(subscriber), {})[subscriber] = None
        self.rested = None
        if subscriber.event_name is not None:
            line = named_frame(b"", subscriber.event_name.encode())
            self.name_bytes = max(self.name_bytes, len(line))

    def stir(self, subscriber: Subscriber) -> None:
        form = _form_of(subscriber)
        group = self.resting[form]
        del group[subscriber]
        if not group:
            del self.resting[form]
        self.rested = None

    def at_rest(self) -> list[Subscriber]:
        return [subscriber for group in self.resting.values() for subscriber in group]

    def remember(self, publication: Publication, *, most: int, most_bytes: int) -> None:
        """Keeps a publication that follows the feed's position, if that is known."""
        if not self.recent:
            self.before_recent = self.position
        self.recent.append(publication)
        self.recent_bytes += len(publication.frame)
        while len(self.recent) > most or (self.recent_bytes > most_bytes and len(self.recent) > 1):
            dropped = self.recent.popleft()
            self.recent_bytes -= len(dropped.frame)
            self.before_recent = dropped.position

    def forget_recent(self) -> None:
        self.recent.clear()
        self.recent_bytes = 0

    def heard_after(self, position: Position) -> list[Publication] | None:
        """What was heard after that very position, tag and all; None if that isn't known."""
        if not self.recent:
            return None
        if position == self.before_recent:
            return list(self.recent)
        oldest = self.recent[0].position
        assert oldest is not None
        i = position.seq - oldest.seq
        if 0 <= i < len(self.recent) and self.recent[i].position == position:
            return list(itertools.islice(self.recent, i + 1, None))
        return None


class Hub:
    """This process's subscribers, by stream. Not thread-safe: the shell holds its lock.

    Args:
        witnesses: what this process remembers of streams, of those without readers too.
        pages: its reads of logs.
        max_subscribers: open responses; None for no limit.
        history_ttl: seconds after which a log without new events expires.
        cursor_ttl: seconds within which no life of a stream can come and go unseen.
        check_interval: seconds of silence after which a stream's log is compared.
        check_jitter: the part of that interval over which checks are spread.
        linger: seconds that a channel stays subscribed after its last subscriber left.
        max_recent, max_recent_bytes: what a feed remembers while somebody replays.
        max_batch, max_batch_bytes: what a feed holds for those that rest, until the next flush;
            at these bounds each has a backlog of its own again.
    """

    def __init__(
        self,
        *,
        witnesses: Witnesses,
        pages: Pages,
        max_subscribers: int | None,
        history_ttl: float,
        cursor_ttl: float,
        check_interval: float,
        check_jitter: float,
        linger: float,
        max_recent: int,
        max_recent_bytes: int,
        max_batch: int,
        max_batch_bytes: int,
    ) -> None:
        self._witnesses = witnesses
        witnesses.listen_to(self._heard)
        self._max_subscribers = max_subscribers
        self._history_ttl = history_ttl
        self._cursor_ttl = cursor_ttl
        self._check_interval = check_interval
        self._check_jitter = check_jitter
        self._linger = linger
        self._max_recent = max_recent
        self._max_recent_bytes = max_recent_bytes
        self._max_batch = max_batch
        self._max_batch_bytes = max_batch_bytes
        self._feeds: dict[str, _Feed] = {}
        self._is_connected = False
        # Every response has ended, and those that still come do.
        self._is_closed = False
        # Those that are CLOSED and whose writers have not finished.
        self._ending: dict[Subscriber, None] = {}
        self._ends_to_tell: list[tuple[str, CloseReason]] = []
        self._subscribe: dict[str, None] = {}
        self._unsubscribe: dict[str, None] = {}
        self._pages = pages
        self._dirty: dict[Subscriber, None] = {}
        self._deliveries: dict[_Feed, None] = {}
        # What an interrupted drain has left; used by whoever writes, without the lock.
        self.outbox = Outbox()
        self._deadlines: list[tuple[float, int, Subscriber]] = []
        self._order = itertools.count()
        self._count = 0
        self._clock = ServerClock()
        # When what is about to be written was sent, of what says so.
        self._sent: list[float] = []
        # How often a response ended, by reason.
        self.ended: Counter[CloseReason] = Counter()
        # For the stats.
        self._frames_written = 0
        self._backlog_high_water = 0
        self._resets = 0
        self._connections = 0
        self._refused = 0
        self._short_of_descriptors = 0

    @classmethod
    def of(cls, config: StreamConfig, witnesses: Witnesses) -> Hub:
        """An empty one with a configuration's bounds."""
        return cls(
            witnesses=witnesses,
            pages=Pages(PageLimits()),
            max_subscribers=config.max_subscribers,
            history_ttl=config.history_ttl,
            cursor_ttl=cursor_ttl_of(config),
            check_interval=config.position_check_interval,
            check_jitter=CHECK_JITTER,
            linger=LINGER_INTERVAL,
            max_recent=config.max_backlog,
            max_recent_bytes=config.max_backlog_bytes,
            max_batch=config.max_backlog,
            max_batch_bytes=config.max_backlog_bytes,
        )

    def __len__(self) -> int:
        """How many responses are open."""
        return self._count

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody reads, responses or others."""
        return bool(self._everybody())

    @property
    def _is_full(self) -> bool:
        return self._max_subscribers is not None and self._count >= self._max_subscribers

    def stats(self) -> StreamStats:
        """What was counted so far. Any thread may ask, without the lock."""
        return StreamStats(
            subscribers=self._count,
            streams=len(self._feeds),
            frames_written=self._frames_written,
            backlog_high_water=self._backlog_high_water,
            resets=self._resets,
            reconnects=max(0, self._connections - 1),
            refused=self._refused,
            short_of_descriptors=self._short_of_descriptors,
            ended={reason.value: self.ended[reason] for reason in CloseReason},
        )

    # Subscribers come and go

    def add(
        self, subscriber: Subscriber, now: float, descriptors: Descriptors | None = None
    ) -> bool:
        """Registers a subscriber; False if there are too many.

        A closed hub closes it at once, uncounted: it was never open.

        Args:
            descriptors: those of the process, as far as they are known.
        """
        if self._is_closed:
            subscriber.close(CloseReason.SHUTDOWN)
            return True
        is_short = descriptors is not None and descriptors.are_short
        if subscriber.is_response and (self._is_full or is_short):
            self._count_refusal(is_short=not self._is_full)
            return False
        feed = self._feeds.get(subscriber.stream_id)
        if feed is None:
            feed = self._new_feed(subscriber.stream_id, now)
            if self._is_connected:
                self._ask_to_subscribe(feed, now)
        may_join = subscriber.begins_now and feed.is_subscribed and feed.can_be_joined(now)
        feed.replaying[subscriber] = None
        self._count += subscriber.is_response
        if may_join:
            assert feed.position is not None
            subscriber.begin(feed.position)
            self._enter_live(feed, subscriber)
            self._dirty[subscriber] = None
        elif feed.is_subscribed:
            self._read(feed, subscriber)
        self._look_at(subscriber, now)
        return True

    def _new_feed(self, stream_id: str, now: float) -> _Feed:
        # Spread by what is at hand, so that the core needs no dice.
        spread = (hash(stream_id) + next(self._order)) % 997 / 997
        check_after = self._check_interval * (1 - self._check_jitter * (0.3 + 0.7 * spread))
        feed = self._feeds[stream_id] = _Feed(stream_id, now, check_after=check_after)
        return feed

    def remove(self, subscriber: Subscriber, reason: CloseReason, now: float) -> None:
        """Ends a subscriber, for the reason that it has already or else this one.

        Harmless for one that isn't open, or was never registered.
        """
        if subscriber.is_resting:
            self._wake_up(self._feeds[subscriber.stream_id], subscriber)
        if reason is CloseReason.DISCONNECT:
            subscriber.leave()
            self._ending.pop(subscriber, None)
        feed = self._feeds.get(subscriber.stream_id)
        if subscriber.state is State.CLOSED or feed is None or not feed.holds(subscriber):
            return
        subscriber.close(reason)
        if subscriber.is_response and reason is not CloseReason.DISCONNECT:
            self._ending[subscriber] = None
        self._tell_end(subscriber)
        self._dirty[subscriber] = None
        self._count -= subscriber.is_response
        feed.live.pop(subscriber, None)
        feed.replaying.pop(subscriber, None)
        if not feed.replaying:
            feed.forget_recent()
        if feed.is_empty:
            feed.idle_since = now
        self._look_at(subscriber, now)

    def refuse(self, subscriber: Subscriber, now: float) -> None:
        """There is no descriptor for a response that was registered: it is one too many."""
        self._count_refusal(is_short=True)
        self.remove(subscriber, CloseReason.DISCONNECT, now)

    def _count_refusal(self, *, is_short: bool) -> None:
        self._refused += 1
        self._short_of_descriptors += is_short

    def take(self, subscriber: Subscriber, now: float) -> Outgoing:
        """What the subscriber's writer has to write; see Subscriber.take."""
        outgoing = subscriber.take(now)
        if outgoing.frames:
            self._frames_written += len(outgoing.frames)
        elif subscriber.state is State.REPLAYING:
            self._read_on(self._feeds[subscriber.stream_id], subscriber)
        elif subscriber.may_rest:
            self._rest(self._feeds[subscriber.stream_id], subscriber)
        if outgoing.closed is not None:
            # Its last write has a time to be done in.
            self._look_at(subscriber, now)
        return outgoing

    def _tell_end(self, subscriber: Subscriber) -> None:
        assert subscriber.closed is not None
        if subscriber.is_response:
            self.ended[subscriber.closed] += 1
            self._ends_to_tell.append((subscriber.stream_id, subscriber.closed))

    def _rest(self, feed: _Feed, subscriber: Subscriber) -> None:
        # A batch that waits to be written began before it could rest.
        if not feed.batch and not subscriber.is_resting:
            subscriber.is_resting = True
            del feed.live[subscriber]
            feed.rest(subscriber)

    def _wake_up(self, feed: _Feed, subscriber: Subscriber) -> None:
        """A backlog of its own again, with what it would have got at the next flush."""
        subscriber.is_resting = False
        feed.stir(subscriber)
        feed.live[subscriber] = None
        for publication in feed.batch:
            subscriber.queue(publication)
            self._dirty[subscriber] = None
        self._note_backlog(subscriber)

    def _wake_all_up(self, feed: _Feed) -> None:
        for subscriber in feed.at_rest():
            self._wake_up(feed, subscriber)
        feed.forget_batch()

    def block(self, subscribers: Iterable[Subscriber], now: float) -> None:
        """A delivery to these could not be written at once: their writers will take again."""
        for subscriber in subscribers:
            if subscriber.state is State.CLOSED and subscriber not in self._ending:
                continue
            subscriber.block(now)
            if subscriber.is_resting:
                self._wake_up(self._feeds[subscriber.stream_id], subscriber)
            self._look_at(subscriber, now)

    def wake(self, subscriber: Subscriber) -> None:
        """Its writer is to look at the next flush what there is to take."""
        self._dirty[subscriber] = None

    def fail(self, subscriber: Subscriber, now: float) -> None:
        """Its writer raised: its response is cut, or given up if that was the cut."""
        if subscriber.is_aborted:
            self.remove(subscriber, CloseReason.DISCONNECT, now)
            return
        self.remove(subscriber, CloseReason.FAILED, now)
        if subscriber in self._ending:
            subscriber.abort()
            self._dirty[subscriber] = None

    def close(self, now: float) -> None:
        """Ends every subscriber, and each that still comes. Repeating it changes nothing."""
        if not self._is_closed:
            self._is_closed = True
            for feed in self._feeds.values():
                self._note_heard(feed)
            self._stop(now, self._everybody())

    def close_those_of(self, server: object, now: float) -> None:
        """Ends the responses that one server of several serves; None for those of no known one."""
        everybody = self._everybody()
        self._stop(now, [each for each in everybody if each.is_response and each.server is server])

    def reopen(self) -> None:
        """Others come, whom another server serves."""
        self._is_closed = False

    def _everybody(self) -> list[Subscriber]:
        by_feed = ([*feed.live, *feed.at_rest(), *feed.replaying] for feed in self._feeds.values())
        return [*self._ending, *itertools.chain.from_iterable(by_feed)]

    def _stop(self, now: float, subscribers: Iterable[Subscriber]) -> None:
        for subscriber in subscribers:
            subscriber.stop(now)
            if subscriber.state is State.CLOSED:
                self._look_at(subscriber, now)
            else:
                self.remove(subscriber, CloseReason.SHUTDOWN, now)

    # What the listener hears

    def connection_made(self, now: float) -> None:
        """A new connection, with nothing subscribed on it."""
        self._is_connected = True
        self._connections += 1
        self._unsubscribe = {}
        for feed in self._feeds.values():
            self._ask_to_subscribe(feed, now)

    def connection_lost(self) -> None:
        self._is_connected = False
        self._subscribe = {}
        self._unsubscribe = {}
        for feed in self._feeds.values():
            feed.is_subscribed = False
            self._unsettle(feed)
            for subscriber in feed.replaying:
                subscriber.connection_lost()

    def _ask_to_subscribe(self, feed: _Feed, now: float) -> None:
        self._subscribe[feed.stream_id] = None
        feed.asked_at = now

    def receive_subscribed(self, stream_id: str) -> None:
        """A SUBSCRIBE is acknowledged: nothing is missed from here on; what was before may be."""
        feed = self._feeds.get(stream_id)
        if feed is not None:
            feed.is_subscribed = True
            self._unsettle(feed)

    def receive_publication(self, stream_id: str, publication: Publication, now: float) -> None:
        """A message on the stream's channel."""
        feed = self._feeds.get(stream_id)
        if feed is None:
            return
        position = publication.position
        if position is None:
            self._deliver(feed, publication, now)
            return
        current = feed.position
        if current is not None:
            if position.epoch != current.epoch:
                current = self._across_lives(feed, current, position, now)
            if position.follows(current):
                feed.witness = position
            elif self._was_read(feed, position, current):
                feed.heard = position
                return
            else:
                self._unsettle(feed)
        if feed.replaying:
            feed.remember(publication, most=self._max_recent, most_bytes=self._max_recent_bytes)
        feed.position = feed.heard = position
        feed.has_ended = publication.is_end
        feed.confirmed_at = now
        feed.expires_at = now + self._history_ttl
        self._deliver(feed, publication, now)
        if feed.replaying:
            self._join_those_that_wait(feed, now)

    def _across_lives(
        self, feed: _Feed, current: Position, position: Position, now: float
    ) -> Position:
        """The feed's position, carried into the life that a publication belongs to.

        Only where nothing can lie between, since no life had begun; and only into a life that
        can have begun by now. Whatever else it is, the log decides.
        """
        age = (position.epoch - current.epoch) / 1e6
        if current.is_start and 0 <= age <= now - feed.confirmed_at + EXPIRY_SLACK:
            feed.position = Position.start(position.epoch)
            return feed.position
        return current

    def _has_expired(self, feed: _Feed, now: float) -> bool:
        """Whether the log has expired by itself, and nothing sent since can have done so too."""
        if feed.expires_at is None or now - feed.confirmed_at >= self._cursor_ttl:
            return False
        return now >= feed.expires_at - EXPIRY_SLACK

    def _was_read(self, feed: _Feed, position: Position, current: Position) -> bool:
        """Whether a publication is late news: the log showed it before the channel did.

        What was heard already can't be heard again: then the history was rewritten.
        """
        if position.epoch != current.epoch or position.seq > current.seq:
            return False
        if position.seq == current.seq and position.tag != current.tag:
            return False
        heard = feed.heard
        return heard is None or heard.epoch != position.epoch or heard.seq < position.seq

    def _deliver(self, feed: _Feed, publication: Publication, now: float) -> None:
        if publication.sent_at is not None:
            self._note_time(feed, publication.sent_at)
        if feed.live:
            self._deliver_to_backlogs(feed, publication, now)
        if feed.resting:
            feed.batch.append(publication)
            feed.batch_bytes += len(publication.frame) + feed.name_bytes
            feed.delivered_at = now
            self._deliveries[feed] = None
            if len(feed.batch) >= self._max_batch or feed.batch_bytes >= self._max_batch_bytes:
                self._wake_all_up(feed)
        if publication.is_end:
            self._wake_all_up(feed)
            for subscriber in list(feed.live):
                self.remove(subscriber, CloseReason.END, now)

    def _note_time(self, feed: _Feed, sent_at: int) -> None:
        at = self._clock.local(sent_at)
        if at is not None and (feed.live or feed.resting):
            self._sent.append(at)

    def _deliver_to_backlogs(self, feed: _Feed, publication: Publication, now: float) -> None:
        overflowing = []
        high_water = self._backlog_high_water
        for subscriber in feed.live:
            if subscriber.receive(publication):
                self._dirty[subscriber] = None
                if subscriber.live_events > high_water:
                    high_water = subscriber.live_events
            else:
                overflowing.append(subscriber)
        self._backlog_high_water = high_water
        for subscriber in overflowing:
            self.remove(subscriber, CloseReason.OVERFLOW, now)

    def _note_backlog(self, subscriber: Subscriber) -> None:
        if subscriber.live_events > self._backlog_high_water:
            self._backlog_high_water = subscriber.live_events

    # What the log says

    def receive_history(
        self, request: HistoryRequest, page: HistoryPage, now: float, *, asked_at: float
    ) -> None:
        """The answer to a request that requests_to_send gave.

        Args:
            asked_at: when it was sent to Redis: the page is no older, and may be no younger.
        """
        self._clock.read(page.clock, asked_at=asked_at, now=now)
        for recipient, shown in self._pages.answered(request, page, now):
            if isinstance(recipient, _Feed):
                self._receive_check(recipient, shown, now, asked_at)
            elif isinstance(recipient, Subscriber) and not recipient.is_gone:
                self._receive_page(recipient, shown, now, asked_at)

    def history_failed(self, request: HistoryRequest, now: float) -> None:
        """Redis didn't answer a request: it is asked again a little later."""
        self._pages.failed(request, now)

    def batch_done(self, seconds: float, *, is_whole: bool) -> None:
        """What requests_to_send gave is done: how long that took, and whether all was answered."""
        self._pages.batch_done(seconds, is_whole=is_whole)

    def _receive_page(
        self, subscriber: Subscriber, page: HistoryPage, now: float, asked_at: float
    ) -> None:
        feed = self._feeds[subscriber.stream_id]
        was_stale, subscriber.is_stale = subscriber.is_stale, False
        resets = subscriber.resets
        subscriber.receive_history(page, now, asked_at=asked_at)
        self._resets += subscriber.resets - resets
        if subscriber.has_backlog or subscriber.start is not None:
            self._dirty[subscriber] = None
        if subscriber.closed is not None:
            self.remove(subscriber, subscriber.closed, now)
            return
        if was_stale:
            subscriber.is_caught_up = False
        subscriber.waiting_since = now
        if subscriber.is_caught_up and subscriber.known == feed.position:
            # As good as a position check.
            self._confirm(feed, page, now, asked_at)
        self._join(feed, subscriber, now, known=subscriber.known)

    def _join(
        self, feed: _Feed, subscriber: Subscriber, now: float, *, known: Position | None
    ) -> None:
        """Makes a subscriber LIVE if it stands where the feed stands, or sees to it that it will.

        known is the feed's position when the subscriber's page was asked for.
        """
        if not subscriber.is_caught_up or not feed.is_subscribed:
            self._read_on(feed, subscriber)
            return
        position = subscriber.position
        assert position is not None
        if feed.position is None:
            self._settle(feed, position, now, expires_at=subscriber.expires_at)
        current = feed.position
        assert current is not None
        if position == current or (position.is_start and current.is_start):
            # The feed may have heard it behind a hole: now the log has shown it.
            feed.know(position)
            self._enter_live(feed, subscriber)
        elif self._is_ahead(position, current):
            pass  # What it has read is on its way to the feed; tick() sees to it if it isn't.
        elif self._catch_up(feed, subscriber, position, current, now):
            pass
        elif current == known:
            # The log was read after the feed had got there, and says otherwise.
            self._settle(feed, position, now, expires_at=subscriber.expires_at)
            self._enter_live(feed, subscriber)
        else:
            subscriber.is_caught_up = False
            self._read_on(feed, subscriber)

    @staticmethod
    def _is_ahead(position: Position, current: Position) -> bool:
        if position.epoch == current.epoch:
            return position.seq > current.seq
        return current.is_start and position.epoch > current.epoch

    def _catch_up(
        self,
        feed: _Feed,
        subscriber: Subscriber,
        position: Position,
        current: Position,
        now: float,
    ) -> bool:
        """Gives a subscriber what was heard since its page was read, if all of it is at hand."""
        if position.epoch != current.epoch or position.seq >= current.seq:
            return False
        publications = feed.heard_after(position)
        if publications is None:
            return False
        feed.know(current)
        self._enter_live(feed, subscriber)
        self._dirty[subscriber] = None
        for publication in publications:
            if not subscriber.receive(publication):
                self.remove(subscriber, CloseReason.OVERFLOW, now)
                break
            self._note_backlog(subscriber)
            if publication.is_end:
                self.remove(subscriber, CloseReason.END, now)
        return True

    def _enter_live(self, feed: _Feed, subscriber: Subscriber) -> None:
        subscriber.enter_live()
        del feed.replaying[subscriber]
        feed.live[subscriber] = None
        if not feed.replaying:
            feed.forget_recent()

    def _join_those_that_wait(self, feed: _Feed, now: float) -> None:
        for subscriber in [s for s in feed.replaying if s.is_caught_up]:
            self._join(feed, subscriber, now, known=None)

    def _unsettle(self, feed: _Feed) -> None:
        """Sends everybody back to the log, from where they are."""
        for subscriber in feed.replaying:
            subscriber.is_caught_up = False
            subscriber.is_stale = subscriber.is_reading
        self._leave_live(feed)
        feed.position = feed.heard = None
        feed.forget_recent()
        for subscriber in feed.replaying:
            self._read_on(feed, subscriber)

    def _settle(
        self, feed: _Feed, position: Position, now: float, *, expires_at: float | None
    ) -> None:
        """Puts the feed where the log stands; who was live elsewhere reads on from there."""
        movers = self._leave_live(feed)
        feed.position = position
        feed.know(position)
        feed.has_ended = False
        feed.heard = None
        feed.forget_recent()
        feed.confirmed_at = now
        feed.expires_at = expires_at
        for subscriber in movers:
            self._read_on(feed, subscriber)

    def _leave_live(self, feed: _Feed) -> list[Subscriber]:
        self._wake_all_up(feed)
        movers = list(feed.live)
        feed.live.clear()
        for subscriber in movers:
            subscriber.leave_live(
                feed.position, confirmed_at=feed.confirmed_at, expires_at=feed.expires_at
            )
            feed.replaying[subscriber] = None
        return movers

    # Position checks

    def _receive_check(self, feed: _Feed, page: HistoryPage, now: float, asked_at: float) -> None:
        feed.is_checking = False
        if self._feeds.get(feed.stream_id) is not feed or feed.position is None:
            return
        if not self._confirm(feed, page, now, asked_at):
            self._unsettle(feed)

    def _confirm(self, feed: _Feed, page: HistoryPage, now: float, asked_at: float) -> bool:
        """Whether the log stands where the feed stands, or holds nothing any more."""
        if feed.position is None:
            return False
        if page.top == feed.position:
            feed.know(feed.position)
            feed.expires_at = asked_at + page.ttl if page.ttl is not None else None
        elif page.top.is_start and self._is_forgotten(feed, feed.position, page, now):
            feed.position = page.top
            feed.has_ended = False
            feed.expires_at = None
        else:
            return False
        feed.confirmed_at = asked_at
        return True

    def _is_forgotten(self, feed: _Feed, position: Position, page: HistoryPage, now: float) -> bool:
        """Whether a log that holds nothing has lost nothing that the feed hadn't heard."""
        if page.generated == (position.epoch, position.seq):
            return True
        if page.generated is not None and page.generated > position[:2]:
            return False
        if position.is_start:
            return now - feed.confirmed_at < self._cursor_ttl
        return self._has_expired(feed, now)

    # Reads

    def _read(self, feed: _Feed, subscriber: Subscriber) -> None:
        """Asks for the subscriber's next page, if it isn't asked for already."""
        if not subscriber.is_reading:
            subscriber.is_reading = True
            subscriber.known = feed.position
            self._pages.ask(subscriber.request(), subscriber)

    def _read_on(self, feed: _Feed, subscriber: Subscriber) -> None:
        """The next page, once all before it is written."""
        if feed.is_subscribed and not subscriber.is_caught_up and subscriber.is_idle:
            self._read(feed, subscriber)

    # Time

    def tick(self, now: float) -> None:
        """Keep-alives, deadlines, position checks, channels that nobody needs any more."""
        while self._deadlines and self._deadlines[0][0] <= now:
            due, _, subscriber = heapq.heappop(self._deadlines)
            if due == subscriber.look_at:
                subscriber.look_at = float("inf")
                self._look_at(subscriber, now)
        self._pages.tick(now)
        for feed in list(self._feeds.values()):
            if feed.is_empty:
                self._forget_idle(feed, now)
            elif feed.is_subscribed:
                if now - feed.confirmed_at >= feed.check_after:
                    self._check(feed)
                if feed.replaying:
                    self._hurry_those_that_wait(feed, now)
            elif self._is_connected and now - feed.asked_at >= _SUBSCRIBE_TIMEOUT:
                # Redis refused it, or its answer was lost.
                self._ask_to_subscribe(feed, now)

    def _look_at(self, subscriber: Subscriber, now: float) -> None:
        if subscriber.state is State.CLOSED:
            due = subscriber.tick_closed(now)
            if subscriber.is_aborted:
                self._dirty[subscriber] = None
            self._look_again(subscriber, due)
            return
        had_backlog = subscriber.has_backlog
        feed = self._feeds[subscriber.stream_id]
        reason, due = subscriber.tick(now, delivered_at=feed.delivered_at)
        if reason is not None:
            self.remove(subscriber, reason, now)
            return
        if subscriber.has_backlog and not had_backlog:
            if subscriber.is_resting:
                # Nothing may be written past it while it is under way.
                self._wake_up(feed, subscriber)
            self._dirty[subscriber] = None
        self._look_again(subscriber, due)

    def _look_again(self, subscriber: Subscriber, due: float) -> None:
        # A look that is due before sees to this one. One that is due later is passed over then.
        if due < subscriber.look_at:
            subscriber.look_at = due
            heapq.heappush(self._deadlines, (due, next(self._order), subscriber))

    def _forget_idle(self, feed: _Feed, now: float) -> None:
        if now - feed.idle_since < self._linger:
            return
        self._note_heard(feed)
        del self._feeds[feed.stream_id]
        feed.is_gone = True
        if feed.stream_id in self._subscribe:
            del self._subscribe[feed.stream_id]
        elif self._is_connected:
            self._unsubscribe[feed.stream_id] = None

    def _check(self, feed: _Feed) -> None:
        if (feed.live or feed.resting) and not feed.is_checking:
            assert feed.position is not None
            feed.is_checking = True
            self._pages.ask(HistoryRequest.after(feed.stream_id, feed.position, limit=0), feed)

    def _hurry_those_that_wait(self, feed: _Feed, now: float) -> None:
        for subscriber in list(feed.replaying):
            # While the feed moves on, it gets there by itself: messages come in their order.
            since = max(subscriber.waiting_since, feed.confirmed_at)
            if subscriber.is_caught_up and now - since >= _JOIN_TIMEOUT:
                assert subscriber.position is not None
                self._settle(feed, subscriber.position, now, expires_at=subscriber.expires_at)
                self._enter_live(feed, subscriber)
                self._join_those_that_wait(feed, now)
                return

    # Drains

    @property
    def has_commands(self) -> bool:
        return bool(self._subscribe or self._unsubscribe)

    @property
    def has_requests(self) -> bool:
        return self._pages.has_requests

    def commands_to_send(self) -> Commands:
        """What has to be subscribed and unsubscribed since the last call."""
        commands = Commands(list(self._subscribe), list(self._unsubscribe))
        self._subscribe, self._unsubscribe = {}, {}
        return commands

    def requests_to_send(self) -> list[HistoryRequest]:
        """What is to be read of logs in the next round trip; see Pages."""
        requests = self._pages.requests_to_send()
        for request in requests:
            request.witness = self._witnesses.of(request.key.stream_id)
        return requests

    def _heard(self, stream_id: str) -> Position | None:
        """The newest that the stream's readers know of. Any thread may ask, without the lock."""
        feed = self._feeds.get(stream_id)
        return feed.witness if feed is not None else None

    def _note_heard(self, feed: _Feed) -> None:
        """What was heard of a feed outlives it."""
        if feed.witness is not None:
            self._witnesses.note(feed.stream_id, feed.witness)

    @property
    def has_writes(self) -> bool:
        return bool(self._deliveries or self._dirty) or not self.outbox.is_empty

    def ends_to_tell(self) -> list[tuple[str, CloseReason]]:
        """The streams of the responses that have ended since the last call, and why each did."""
        ends, self._ends_to_tell = self._ends_to_tell, []
        return ends

    def times_to_tell(self) -> Sequence[float]:
        """When what the other drains give was sent, of the publications that say so."""
        if not self._sent:
            return ()
        sent, self._sent = self._sent, []
        return sent

    def outbox_to_write(self) -> Outbox:
        """What an interrupted drain has left, or else what is to be written since the last call.

        Never both: who blocks on the one has no room for the other, and gets it in a backlog of
        its own. Tell with receive_written() what became of it, and ask again while has_writes.
        """
        if self.outbox.is_empty:
            self.outbox.add(self.deliveries_to_make(), self.subscribers_to_flush())
        else:
            # Nobody was told that they block; their writers may have found room since.
            still_open = [s for s in self.outbox.blocked if s.state is not State.CLOSED]
            self._dirty.update(dict.fromkeys(still_open))
        return self.outbox

    def receive_written(self, now: float) -> list[Failure]:
        """What became of the outbox: who blocks goes on alone, who failed is cut.

        Returns:
            the failures, for the shell to tell.
        """
        outbox = self.outbox
        while outbox.blocked:
            subscriber = outbox.blocked[-1]
            try:
                self.block([subscriber], now)
            except BaseException as exc:
                outbox.fail(subscriber, exc)
            outbox.blocked.pop()
        failures = []
        while outbox.failures:
            failure = outbox.failures[-1]
            if failure.subscriber is not None:
                self.fail(failure.subscriber, now)
            failures.append(outbox.failures.pop())
        return failures

    def deliveries_to_make(self) -> list[Delivery]:
        """What is to be written to those that rest, since the last call; before any flush."""
        feeds, self._deliveries = self._deliveries, {}
        deliveries = []
        for feed in feeds:
            batch = feed.forget_batch()
            if not batch:
                continue
            if feed.rested is None:
                feed.rested = [(form, list(group)) for form, group in feed.resting.items()]
            for (name, is_chunked), subscribers in feed.rested:
                if len(batch) == 1:
                    data = batch[0].named(name)
                else:
                    data = b"".join([publication.named(name) for publication in batch])
                deliveries.append((chunk(data) if is_chunked else data, subscribers))
                self._frames_written += len(batch) * len(subscribers)
        return deliveries

    def subscribers_to_flush(self) -> Iterable[Subscriber]:
        """Those that have something to write, or have ended, since the last call."""
        dirty, self._dirty = self._dirty, {}
        return dirty
