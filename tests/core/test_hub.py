"""Those that rest, and newcomers: what the hub lets be written to them past their backlogs."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import pytest

from streamy_redis.core.descriptors import Descriptors
from streamy_redis.core.event import KEEP_ALIVE, OPEN, RESET
from streamy_redis.core.history import HistoryPage, HistoryRequest
from streamy_redis.core.hub import Hub
from streamy_redis.core.pages import PageLimits, Pages
from streamy_redis.core.publication import Position, Publication
from streamy_redis.core.stats import StreamStats
from streamy_redis.core.subscriber import CloseReason, Limits, Pacing, State, Subscriber
from streamy_redis.core.witness import Witnesses
from tests.core.redis_model import RedisModel

STREAM = "s"
PAGE_LIMITS = PageLimits(
    page_bytes=10_000,
    keep_from=3,
    batch_requests=10,
    batch_bytes=100_000,
    slow_batch=0.1,
    retry_interval=(0.5, 1.5),
)
LIMITS = Limits(max_backlog=4, max_backlog_bytes=1000, page_events=10, cursor_ttl=600.0)
PACING = Pacing(retry=1500, keep_alive_interval=15.0, write_timeout=30.0, ends_at=1e9)


@dataclass(eq=False)
class Client:
    """A response whose writes the test does."""

    writes_at_once: bool = True
    is_chunked: bool = False
    is_blocked: bool = False
    written: list[bytes] = field(default_factory=list)

    def wake(self) -> None:
        pass

    def write(self, data: bytes) -> bool:
        self.written.append(data)
        return not self.is_blocked


class Process:
    """One hub, subscribed, and the Redis that it hears."""

    def __init__(self, *, max_subscribers: int | None = None) -> None:
        self.redis = RedisModel()
        self.now = 0.0
        self.hub = Hub(
            witnesses=Witnesses(100),
            pages=Pages(PAGE_LIMITS),
            max_subscribers=max_subscribers,
            history_ttl=3600.0,
            cursor_ttl=600.0,
            check_interval=10.0,
            check_jitter=0.3,
            linger=2.0,
            max_recent=4,
            max_recent_bytes=1000,
            max_batch=4,
            max_batch_bytes=1000,
        )
        self.hub.connection_made(self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.redis.advance(seconds)
        self.hub.tick(self.now)

    def new(
        self,
        cursor: Position | None = None,
        pacing: Pacing | None = PACING,
        *,
        event_name: str | None = None,
    ) -> Subscriber:
        return Subscriber(
            STREAM,
            Client(),
            LIMITS,
            cursor=cursor,
            replay=0,
            event_name=event_name,
            pacing=pacing,
            now=self.now,
        )

    def add(self, cursor: Position | None = None, *, event_name: str | None = None) -> Subscriber:
        subscriber = self.new(cursor, event_name=event_name)
        assert self.hub.add(subscriber, self.now)
        if STREAM in self.hub.commands_to_send().subscribe:
            self.redis.is_subscribed = True
            self.hub.receive_subscribed(STREAM)
        return subscriber

    def rest(self, *, event_name: str | None = None) -> Subscriber:
        """One that has written all it had."""
        subscriber = self.add(event_name=event_name)
        self.read_log()
        assert self.take(subscriber)
        assert not self.take(subscriber)
        assert subscriber.is_resting
        return subscriber

    def take(self, subscriber: Subscriber) -> list[bytes]:
        return self.hub.take(subscriber, self.now).frames

    def read_log(self) -> int:
        """How many pages had to be read."""
        requests = self.hub.requests_to_send()
        for request in requests:
            page = self.redis.read(request)
            self.hub.receive_history(request, page, self.now, asked_at=self.now)
        return sum(not request.is_for_summary for request in requests)

    def send(self, count: int = 1, *, size: int = 0) -> None:
        for _ in range(count):
            self.redis.send()
            frame = self.redis.in_flight.popleft().replace(b"data: ", b"data: " + b"x" * size)
            publication = Publication.parse(frame)
            assert publication is not None
            self.hub.receive_publication(STREAM, publication, self.now)

    def deliver(self) -> None:
        for data, subscribers in self.hub.deliveries_to_make():
            blocked = [s for s in subscribers if not s.writer.write(data)]
            self.hub.block(blocked, self.now)


@pytest.fixture
def process() -> Process:
    return Process()


def client_of(subscriber: Subscriber) -> Client:
    assert isinstance(subscriber.writer, Client)
    return subscriber.writer


# -- keep-alives ----------------------------------------------------------------------------------


def test_one_that_blocks_again_and_again_is_looked_at_no_more_often(
    process: Process, monkeypatch: pytest.MonkeyPatch
):
    looks: Counter[Subscriber] = Counter()
    tick = Subscriber.tick

    def counted(self: Subscriber, now: float, *, delivered_at: float) -> object:
        looks[self] += 1
        return tick(self, now, delivered_at=delivered_at)

    blocking, other = process.rest(), process.rest()
    client_of(blocking).is_blocked = True
    for _ in range(100):
        process.send()
        process.deliver()
        process.take(blocking)
        process.take(blocking)

    monkeypatch.setattr(Subscriber, "tick", counted)
    process.advance(15.0)

    assert looks == {blocking: 1, other: 1}


def test_nothing_is_written_past_a_keep_alive_that_is_under_way(process: Process):
    subscriber = process.rest()
    process.advance(15.0)
    assert process.take(subscriber) == [KEEP_ALIVE]

    process.send()
    process.deliver()

    assert client_of(subscriber).written == []
    assert b"data: 00000001\n" in process.take(subscriber)[0]


def test_nothing_is_written_past_a_keep_alive_that_waits_to_be_taken(process: Process):
    subscriber = process.rest()
    process.advance(15.0)

    process.send()
    process.deliver()

    assert client_of(subscriber).written == []
    keep_alive, event = process.take(subscriber)
    assert (keep_alive, b"data: 00000001\n" in event) == (KEEP_ALIVE, True)


def test_rests_again_when_the_keep_alive_is_written(process: Process):
    subscriber = process.rest()
    process.advance(15.0)
    process.take(subscriber)
    assert not process.take(subscriber)

    process.send()
    process.deliver()

    assert subscriber.is_resting
    assert b"data: 00000001\n" in client_of(subscriber).written[0]


# -- batches --------------------------------------------------------------------------------------


def test_who_does_not_take_a_batch_larger_than_a_backlog_overflows(process: Process):
    resting = [process.rest() for _ in range(3)]

    process.send(LIMITS.max_backlog)
    assert [s.state for s in resting] == [State.LIVE] * 3
    process.send()

    assert [s.closed for s in resting] == [CloseReason.OVERFLOW] * 3
    assert not process.hub.deliveries_to_make()


def test_who_does_not_take_a_batch_of_more_bytes_than_a_backlog_overflows(process: Process):
    resting = [process.rest() for _ in range(3)]

    process.send(3, size=LIMITS.max_backlog_bytes // 2)

    assert [s.closed for s in resting] == [CloseReason.OVERFLOW] * 3


def test_the_names_that_a_batch_is_given_are_bytes_of_it(process: Process):
    named = process.rest(event_name="n" * (LIMITS.max_backlog_bytes // 3))

    process.send(LIMITS.max_backlog)

    assert named.closed is CloseReason.OVERFLOW


def test_who_takes_in_time_gets_all_of_a_batch_larger_than_a_backlog(process: Process):
    subscriber, other = process.rest(), process.rest()

    process.send(LIMITS.max_backlog)
    taken = process.take(subscriber)
    process.send(LIMITS.max_backlog)

    taken += process.take(subscriber)
    sent = [b"data: %08x\n" % n for n in range(1, 2 * LIMITS.max_backlog + 1)]
    assert all(data in frame for data, frame in zip(sent, taken, strict=True))
    assert other.closed is CloseReason.OVERFLOW


def test_who_blocks_in_a_batch_has_the_next_ones_bounded(process: Process):
    stuck, quick = process.rest(), process.rest()
    client_of(stuck).is_blocked = True

    for _ in range(LIMITS.max_backlog + 2):
        process.send()
        process.deliver()

    assert len(client_of(stuck).written) == 1
    assert stuck.closed is CloseReason.OVERFLOW
    assert len(client_of(quick).written) == LIMITS.max_backlog + 2


# -- newcomers ------------------------------------------------------------------------------------


def test_a_newcomer_joins_without_a_read_where_the_feed_was_just_confirmed(process: Process):
    process.rest()
    process.advance(5.0)
    process.send()
    process.deliver()
    process.advance(0.9)

    newcomer = process.add()

    assert newcomer.state is State.LIVE
    assert process.read_log() == 0
    assert f"event: {OPEN}\n".encode() in b"".join(process.take(newcomer))
    assert newcomer.start == process.redis.newest


def test_a_newcomer_reads_a_page_where_the_feed_was_confirmed_long_ago(process: Process):
    process.rest()
    process.send()
    process.deliver()
    process.advance(1.1)

    newcomer = process.add()

    assert newcomer.state is State.WAITING
    assert process.read_log() == 1
    assert newcomer.state is State.LIVE


def test_a_newcomer_begins_where_the_log_stands_although_the_feed_missed_its_deletion(
    process: Process,
):
    process.rest()
    process.send()
    process.deliver()
    process.redis.flush()
    process.advance(1.1)

    newcomer = process.add()
    process.read_log()

    assert newcomer.start is not None
    assert newcomer.start.is_start
    assert newcomer.start.epoch > 1_800_000_000_000_000


def test_newcomers_that_come_one_after_another_read_one_page(process: Process):
    """On a stream that is silent, or that nobody has ever sent to."""
    process.rest()
    process.advance(5.0)

    pages = []
    for _ in range(5):
        newcomer = process.add()
        pages.append(process.read_log())
        assert newcomer.state is State.LIVE

    assert pages == [1, 0, 0, 0, 0]


def test_a_newcomer_to_a_stream_that_all_others_left_gets_no_reset_for_what_was_deleted_before(
    process: Process,
):
    left = process.rest()
    process.send()
    process.deliver()
    process.hub.remove(left, CloseReason.DISCONNECT, process.now)
    process.redis.flush()

    newcomer = process.add()
    written = process.take(newcomer)
    process.read_log()
    process.send()
    for _ in range(4):
        written += process.take(newcomer)
        process.read_log()

    assert f"event: {OPEN}\n".encode() in b"".join(written)
    assert f"event: {RESET}\n".encode() not in b"".join(written)


# -- pages that are kept --------------------------------------------------------------------------


def come_back(process: Process, cursor: Position) -> tuple[int, bytes]:
    """How many pages were read for a client with that cursor, and what it was written."""
    subscriber = process.add(cursor)
    pages = process.read_log()
    pages += process.read_log()
    written = b"".join(process.take(subscriber))
    assert subscriber.state is State.LIVE
    return pages, written


def missed(process: Process, count: int) -> Position:
    """The cursor of somebody who has missed so many."""
    process.rest()
    process.send()
    cursor = process.redis.newest
    assert cursor is not None
    process.send(count)
    process.deliver()
    return cursor


def test_those_who_come_back_to_one_place_read_one_page(process: Process):
    cursor = missed(process, 3)

    (first, written), (second, same), (third, _) = (come_back(process, cursor) for _ in range(3))

    assert (first, second, third) == (1, 0, 0)
    assert same == written
    assert written.count(b"\ndata: 0") == 3


def test_a_page_is_read_anew_when_something_was_sent_since(process: Process):
    cursor = missed(process, 3)
    _, written = come_back(process, cursor)
    process.send()
    process.deliver()

    pages, longer = come_back(process, cursor)

    assert pages == 1
    assert longer.startswith(written)
    assert longer.count(b"\ndata: 0") == 4
    assert come_back(process, cursor) == (0, longer)


@pytest.mark.parametrize("fault", ["flush", "trim", "delete_newest", "roll_back"])
def test_a_page_is_read_anew_when_the_history_has_changed(process: Process, fault: str):
    cursor = missed(process, 3)
    come_back(process, cursor)
    arguments = {"trim": [1], "roll_back": [1]}.get(fault, [])
    getattr(process.redis, fault)(*arguments)

    subscriber = process.add(cursor)
    assert process.read_log() == 0
    # A look at a log that isn't there says all there is to say.
    assert process.read_log() == (fault != "flush")

    written = b"".join(process.take(subscriber))
    assert f"event: {RESET}\n".encode() in written
    assert written.count(b"\ndata: 0") == {"flush": 0, "trim": 1}.get(fault, 2)


def test_a_page_is_read_anew_when_another_event_stands_in_the_newest_s_place(process: Process):
    cursor = missed(process, 3)
    come_back(process, cursor)
    process.redis.roll_back(1)
    process.send()

    pages, written = come_back(process, cursor)

    assert pages == 1
    assert written.count(b"\ndata: 0") == 3
    assert process.redis.newest_tag.encode() in written


def test_a_page_that_is_kept_expires_no_later_than_the_log(process: Process):
    cursor = missed(process, 3)
    first = process.add(cursor)
    process.read_log()
    process.read_log()
    process.advance(0.9)

    second = process.add(cursor)

    assert process.read_log() == 0
    assert second.expires_at == pytest.approx(first.expires_at, abs=0.01)


def test_a_short_page_is_not_kept(process: Process):
    cursor = missed(process, 2)

    assert [come_back(process, cursor)[0] for _ in range(3)] == [1, 1, 1]


def test_a_page_is_kept_for_a_second(process: Process):
    cursor = missed(process, 3)
    come_back(process, cursor)
    process.advance(0.9)
    assert come_back(process, cursor)[0] == 0
    process.advance(0.1)

    assert come_back(process, cursor)[0] == 1


def test_a_page_that_is_kept_shows_the_end_of_it_to_those_who_missed_less(process: Process):
    missed(process, 7)
    cursors = [entry.position for entry in process.redis.log[:5]]

    came = [come_back(process, cursor) for cursor in cursors]

    assert [pages for pages, _ in came] == [1, 0, 0, 0, 0]
    assert [written.count(b"\ndata: 0") for _, written in came] == [7, 6, 5, 4, 3]


def test_those_who_missed_more_read_a_page_of_their_own(process: Process):
    missed(process, 7)
    cursors = [entry.position for entry in process.redis.log[:5]]
    assert come_back(process, cursors[4])[0] == 1

    pages, written = come_back(process, cursors[0])

    assert (pages, written.count(b"\ndata: 0")) == (1, 7)


# -- expiry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [n * 0.25 for n in range(40)])
def test_pages_that_are_long_on_their_way_make_no_log_live_longer(process: Process, phase: float):
    """A log that expires by itself is no loss, whenever a position check looks at it."""
    subscriber = process.rest()
    process.advance(phase)
    process.send()
    process.deliver()

    # Position checks, of which each answer is read at once and, while the log lives, comes late.
    on_their_way: deque[tuple[float, HistoryRequest, HistoryPage]] = deque()
    seen: list[bytes] = []
    expires_at = process.now + 3600.0
    while process.now < expires_at + 15.0:
        process.advance(0.25 if process.now > 3570.0 else 1.0)
        for request in process.hub.requests_to_send():
            on_their_way.append((process.now, request, process.redis.read(request)))
        delay = 2.0 if process.now < expires_at else 0.0
        while on_their_way and on_their_way[0][0] <= process.now - delay:
            asked_at, request, page = on_their_way.popleft()
            process.hub.receive_history(request, page, process.now, asked_at=asked_at)
        seen += process.take(subscriber)

    assert process.redis.newest is None or process.redis.newest.is_start
    assert not any(b"stream-reset" in frame for frame in seen)


# -- ends -----------------------------------------------------------------------------------------


def test_the_end_of_each_response_is_told_and_counted_once(process: Process):
    leaves, stays = process.rest(), process.rest()
    for _ in range(2):
        process.hub.remove(leaves, CloseReason.DISCONNECT, process.now)
    for _ in range(2):
        process.hub.close(process.now)
    process.hub.remove(stays, CloseReason.DISCONNECT, process.now)

    assert process.hub.ended == {CloseReason.DISCONNECT: 1, CloseReason.SHUTDOWN: 1}
    assert process.hub.ends_to_tell() == [
        (STREAM, CloseReason.DISCONNECT),
        (STREAM, CloseReason.SHUTDOWN),
    ]
    assert process.hub.ends_to_tell() == []


def test_where_one_server_of_two_stops_the_other_s_responses_stay(process: Process):
    ours, theirs = process.add(), process.add()
    ours.server, theirs.server = "public", "admin"

    process.hub.close_those_of("public", process.now)

    assert ours.closed is CloseReason.SHUTDOWN
    assert theirs.closed is None


def test_a_reader_in_the_process_is_no_server_s(process: Process):
    response, reader = process.add(), process.new(pacing=None)
    process.hub.add(reader, process.now)

    process.hub.close_those_of(None, process.now)

    assert response.closed is CloseReason.SHUTDOWN
    assert reader.closed is None


def test_who_comes_by_another_server_is_served_after_the_close(process: Process):
    process.hub.close(process.now)

    process.hub.reopen()

    assert process.add().closed is None


def test_who_comes_after_the_close_was_never_open_and_ends_uncounted(process: Process):
    process.hub.close(process.now)

    late = process.new()

    assert process.hub.add(late, process.now)
    assert late.closed is CloseReason.SHUTDOWN
    assert process.hub.stats() == StreamStats()
    assert process.hub.ends_to_tell() == []


def test_who_is_told_that_the_end_is_seen_was_open_and_ended(process: Process):
    process.redis.send(is_end=True)

    seen = process.add(process.redis.newest)
    process.read_log()

    assert seen.start is None, "it is answered 204"
    assert process.hub.ends_to_tell() == [(STREAM, CloseReason.END)]
    assert process.hub.stats().ended == {**StreamStats().ended, "end": 1}


# -- stats ----------------------------------------------------------------------------------------


def test_what_rests_counts_a_frame_for_each_and_publication(process: Process):
    for _ in range(3):
        process.rest()
    before = process.hub.stats().frames_written

    process.send(2)
    process.deliver()

    assert process.hub.stats().frames_written == before + 6


def test_what_is_taken_counts_when_it_is_taken(process: Process):
    process.rest()
    busy = process.add()
    process.read_log()
    before = process.hub.stats().frames_written

    process.send()
    assert process.hub.stats().frames_written == before
    frames = process.take(busy)

    assert len(frames) >= 3, "its first block and the event"
    assert process.hub.stats().frames_written == before + len(frames)


def test_a_backlog_is_a_high_water_while_it_waits(process: Process):
    busy = process.add()
    process.read_log()
    process.take(busy)

    process.send(3)
    assert process.hub.stats().backlog_high_water == 3
    process.take(busy)
    process.send(2)

    assert process.hub.stats().backlog_high_water == 3


def test_what_waits_for_a_client_that_is_stuck_in_one_write_is_a_high_water(process: Process):
    stuck, quick = process.rest(), process.rest()
    client_of(stuck).is_blocked = True

    for _ in range(4):
        process.send()
        process.deliver()

    assert client_of(quick).written, "it takes each at once"
    assert process.hub.stats().backlog_high_water == 3


def test_a_batch_that_can_not_wait_for_the_next_flush_is_a_high_water(process: Process):
    process.rest()

    process.send(LIMITS.max_backlog)

    assert process.hub.stats().backlog_high_water == LIMITS.max_backlog


def test_what_was_heard_while_a_page_was_read_is_a_high_water(process: Process):
    process.rest()
    process.send()
    process.deliver()
    late = process.add(process.redis.newest)
    requests = process.hub.requests_to_send()
    pages = [process.redis.read(request) for request in requests]
    process.send(3)
    for request, page in zip(requests, pages, strict=True):
        process.hub.receive_history(request, page, process.now, asked_at=process.now)

    assert late.live_events == 3
    assert process.hub.stats().backlog_high_water == 3


def test_those_that_there_was_no_room_for_are_refused():
    process = Process(max_subscribers=1)
    process.add()

    for _ in range(2):
        assert not process.hub.add(process.new(), process.now)

    stats = process.hub.stats()
    assert (stats.subscribers, stats.refused, stats.ended) == (1, 2, StreamStats().ended)
    assert stats.short_of_descriptors == 0


@pytest.mark.parametrize("limit", [256, 1024, 65_536])
def test_responses_leave_headroom_of_the_descriptors_and_subscriptions_need_none(limit: int):
    process = Process()
    headroom = {256: 64, 1024: 256, 65_536: 2048}[limit]
    last, none = (Descriptors(limit - headroom + n, limit) for n in (-1, 0))

    assert process.hub.add(process.new(), process.now, last)
    assert not process.hub.add(process.new(), process.now, none)
    assert process.hub.add(process.new(pacing=None), process.now, none)

    stats = process.hub.stats()
    assert (stats.subscribers, stats.refused, stats.short_of_descriptors) == (1, 1, 1)


def test_a_response_for_which_there_is_no_descriptor_after_all_is_refused():
    process = Process()
    response = process.add()

    process.hub.refuse(response, process.now)

    stats = process.hub.stats()
    assert (stats.subscribers, stats.refused, stats.short_of_descriptors) == (0, 1, 1)


@pytest.mark.parametrize("is_refused", [True, False])
def test_one_that_was_never_registered_may_be_removed(is_refused: bool):
    process = Process(max_subscribers=1)
    if is_refused:
        process.add()
    never_in = process.new()
    if is_refused:
        assert not process.hub.add(never_in, process.now)

    process.hub.remove(never_in, CloseReason.DISCONNECT, process.now)

    stats = process.hub.stats()
    assert (stats.subscribers, stats.ended) == (is_refused, StreamStats().ended)
    assert not process.hub.ends_to_tell()


# -- when events were sent ------------------------------------------------------------------------


def send_stamped(process: Process, seconds_ago: float) -> None:
    process.redis.send()
    frame = process.redis.in_flight.popleft()
    publication = Publication.parse(
        b"%b:%d\n" % (frame, process.redis.clock - round(seconds_ago * 1e6))
    )
    assert publication is not None
    process.hub.receive_publication(STREAM, publication, process.now)


def test_a_time_is_told_once_in_the_clock_of_this_process(process: Process):
    for _ in range(3):
        process.rest()
    process.advance(5.0)

    send_stamped(process, 2.0)
    process.send()

    assert process.hub.times_to_tell() == [pytest.approx(3.0, abs=0.001)]
    assert process.hub.times_to_tell() == ()


def test_a_time_is_told_for_those_with_a_backlog_too(process: Process):
    busy = process.add()
    process.read_log()
    process.take(busy)

    send_stamped(process, 0.5)

    assert process.hub.times_to_tell() == [pytest.approx(-0.5, abs=0.001)]


def test_what_is_written_to_nobody_has_no_time(process: Process):
    leaves = process.rest()
    process.hub.remove(leaves, CloseReason.DISCONNECT, process.now)

    send_stamped(process, 0.5)

    assert process.hub.times_to_tell() == ()


def test_a_batch_is_one_chunk_for_all_that_want_chunks(process: Process):
    chunked, plain = process.rest(), process.rest()
    # As at a handover, it doesn't rest meanwhile.
    process.hub.block([chunked], process.now)
    chunked.writer = Client(is_chunked=True)
    process.take(chunked)
    process.take(chunked)

    process.send(2)
    process.deliver()

    (whole,) = client_of(plain).written
    assert client_of(chunked).written == [b"%x\r\n%b\r\n" % (len(whole), whole)]
