"""One subscriber: its first block, its bounds, its keep-alives and deadlines."""

from __future__ import annotations

import dataclasses
import json

import pytest

from streamy_redis.core.event import KEEP_ALIVE, read_frame
from streamy_redis.core.history import HistoryPage
from streamy_redis.core.publication import NO_TAG, Position, Publication
from streamy_redis.core.replay import Replay
from streamy_redis.core.subscriber import CloseReason, Limits, Pacing, State, Subscriber
from tests.core.redis_model import Entry, RedisModel

LIMITS = Limits(max_backlog=3, max_backlog_bytes=200, page_events=10, cursor_ttl=600.0)
PACING = Pacing(retry=1500, keep_alive_interval=15.0, write_timeout=30.0, ends_at=1e9)


class _Writer:
    writes_at_once = False

    def wake(self) -> None:
        pass

    def write(self, data: bytes) -> bool:
        raise AssertionError(data)


def _subscriber(
    *,
    cursor: Position | None = None,
    replay: Replay = 0,
    event_name: str | None = None,
    pacing: Pacing | None = PACING,
) -> Subscriber:
    return Subscriber(
        "s",
        _Writer(),
        LIMITS,
        cursor=cursor,
        replay=replay,
        event_name=event_name,
        pacing=pacing,
        now=0.0,
    )


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(30.0, 30_500), (0.001, 501), (0.0014, 501), (1e9, 2**31 - 1)]
)
def test_tcp_may_wait_for_a_client_a_little_longer_than_a_write(seconds: float, milliseconds: int):
    """0 would be the kernel's own time, and more than an int of C holds is an error."""
    pacing = dataclasses.replace(PACING, write_timeout=seconds)

    assert _subscriber(pacing=pacing).user_timeout == milliseconds


def _live(**arguments: object) -> Subscriber:
    subscriber = _subscriber(**arguments)
    subscriber.receive_history(_page(RedisModel(), subscriber), 0.0, asked_at=0.0)
    subscriber.enter_live()
    subscriber.take(0.0)
    subscriber.take(0.0)
    return subscriber


def _page(redis: RedisModel, subscriber: Subscriber) -> HistoryPage:
    return redis.read(subscriber.request())


def _publication(seq: int, size: int = 1) -> Publication:
    frame = b"data: %b\nid: 1800000000000000-%d-%08x\n\n" % (b"x" * size, seq, seq)
    publication = Publication.parse(frame)
    assert publication is not None
    return publication


def test_first_block_is_one_with_retry_in_front_of_the_cursor():
    subscriber = _subscriber()

    subscriber.receive_history(_page(RedisModel(), subscriber), 0.0, asked_at=0.0)

    block = b"".join(subscriber.take(0.0).frames)
    assert block.startswith(
        b"retry: 1500\nevent: stream-open\ndata: {}\nid: 1800000000000001-0-0\n"
    )
    assert block.count(b"\n\n") == 1


def test_nothing_that_comes_later_gets_into_what_was_taken():
    """Whoever took nothing looks at it without the lock: it would be written twice."""
    redis = RedisModel()
    redis.send()
    subscriber = _subscriber(replay="all", pacing=None)
    taken = subscriber.take(0.0)

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert taken.frames == []
    assert len(subscriber.take(0.0).frames) == 1


@pytest.mark.parametrize(("replay", "said"), [("all", {"trimmed": 3}), (2, {}), (0, {})])
def test_who_wants_the_whole_history_is_told_how_much_of_it_is_gone(replay: Replay, said: object):
    redis = RedisModel()
    for _ in range(5):
        redis.send()
    redis.trim(2)
    subscriber = _subscriber(replay=replay)

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert json.loads(read_frame("s", subscriber.take(0.0).frames[1]).data) == said


def test_a_whole_history_says_nothing_of_what_is_gone():
    redis = RedisModel()
    redis.send()
    subscriber = _subscriber(replay="all")

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert read_frame("s", subscriber.take(0.0).frames[1]).data == "{}"


def test_keep_alives_stand_inside_the_open_first_block_until_redis_answers():
    subscriber = _subscriber()

    assert subscriber.take(0.0).frames == [b"retry: 1500\n"]
    subscriber.take(0.0)
    subscriber.tick(15.0, delivered_at=0.0)
    assert subscriber.take(15.0).frames == [KEEP_ALIVE]

    subscriber.receive_history(_page(RedisModel(), subscriber), 16.0, asked_at=16.0)
    assert subscriber.take(16.0).frames[0].startswith(b"event: stream-open\n")


def test_a_newest_event_that_was_deleted_is_a_gap_for_who_has_not_seen_it():
    redis = RedisModel()
    redis.send()
    seen = redis.log[-1].position
    redis.send()
    redis.delete_newest()
    subscriber = _subscriber(cursor=seen)

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert b"event: stream-reset\n" in subscriber.take(0.0).frames[-1]


def test_who_has_seen_the_event_that_was_deleted_stands_before_another_life():
    redis = RedisModel()
    redis.send()
    redis.send()
    seen = redis.log[-1].position
    redis.delete_newest()
    subscriber = _subscriber(cursor=seen)

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert all(b"stream-reset" not in frame for frame in subscriber.take(0.0).frames)
    assert subscriber.position.is_start
    assert subscriber.position > seen


def test_keeps_alive_only_who_was_idle():
    subscriber = _live()
    subscriber.receive(_publication(1))
    subscriber.take(10.0)
    subscriber.take(10.0)

    reason, due = subscriber.tick(15.0, delivered_at=0.0)

    assert (reason, due) == (None, 25.0)
    assert subscriber.take(15.0).frames == []


def test_ends_when_a_write_takes_too_long():
    subscriber = _live()
    subscriber.receive(_publication(1))
    subscriber.take(1.0)

    assert subscriber.tick(30.9, delivered_at=0.0)[0] is None
    assert subscriber.tick(31.0, delivered_at=0.0)[0] is CloseReason.TIMEOUT


def test_looks_again_for_a_keep_alive_although_a_write_was_under_way():
    subscriber = _live()
    subscriber.receive(_publication(1))
    subscriber.take(1.0)

    assert subscriber.tick(1.1, delivered_at=0.0) == (None, 16.1)


def test_ends_when_nobody_comes_for_its_frames():
    subscriber = _live()
    subscriber.receive(_publication(1))

    assert subscriber.tick(44.0, delivered_at=0.0)[0] is None
    assert subscriber.tick(45.0, delivered_at=0.0)[0] is CloseReason.TIMEOUT


def test_looks_again_in_the_future_and_no_later_than_a_keep_alive_is_due():
    subscriber = _live()
    subscriber.receive(_publication(1))

    _, due = subscriber.tick(20.0, delivered_at=0.0)

    assert 20.0 < due <= 35.0


def test_ends_at_its_age():
    pacing = Pacing(retry=1, keep_alive_interval=15.0, write_timeout=30.0, ends_at=100.0)
    subscriber = _live(pacing=pacing)

    assert subscriber.tick(100.0, delivered_at=0.0)[0] is CloseReason.LIFETIME


def test_refuses_more_events_than_its_backlog_holds():
    subscriber = _live()

    assert [subscriber.receive(_publication(n)) for n in range(1, 5)] == [True, True, True, False]


def test_refuses_more_bytes_than_its_backlog_holds():
    subscriber = _live()

    assert subscriber.receive(_publication(1, size=100))
    assert not subscriber.receive(_publication(2, size=100))


def test_one_frame_always_fits():
    subscriber = _live()

    assert subscriber.receive(_publication(1, size=10_000))


def test_counts_live_frames_only():
    redis = RedisModel()
    for _ in range(9):
        redis.send()
    subscriber = Subscriber(
        "s", _Writer(), LIMITS, cursor=None, replay="all", event_name=None, pacing=None, now=0.0
    )

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)
    subscriber.enter_live()

    assert subscriber.receive(_publication(10))
    assert len(subscriber.take(0.0).frames) == 10


def test_an_abrupt_end_drops_what_is_unsent():
    subscriber = _live()
    subscriber.receive(_publication(1))

    subscriber.close(CloseReason.OVERFLOW)

    assert subscriber.take(0.0) == ([], CloseReason.OVERFLOW)


def test_any_other_end_sends_it_first():
    subscriber = _live()
    subscriber.receive(_publication(1))

    subscriber.close(CloseReason.SHUTDOWN)

    assert subscriber.take(0.0) == ([_publication(1).frame], CloseReason.SHUTDOWN)


def test_cuts_off_a_write_that_still_takes_too_long_after_the_end():
    subscriber = _live()
    subscriber.receive(_publication(1))
    subscriber.take(1.0)
    subscriber.close(CloseReason.END)

    assert subscriber.tick_closed(2.0) == 31.0
    assert not subscriber.is_aborted
    subscriber.tick_closed(31.0)
    assert subscriber.is_aborted


def test_gives_a_write_less_time_when_the_server_stops():
    subscriber = _live()
    subscriber.receive(_publication(1))
    subscriber.take(1.0)
    subscriber.close(CloseReason.SHUTDOWN)

    subscriber.stop(2.0)

    assert subscriber.tick_closed(2.0) < 3.0


def test_never_cuts_off_a_writer_that_has_gone():
    subscriber = _live()
    subscriber.receive(_publication(1))
    subscriber.take(1.0)
    subscriber.close(CloseReason.END)
    subscriber.leave()

    subscriber.tick_closed(100.0)
    assert not subscriber.is_aborted


def test_the_first_reason_stays():
    subscriber = _live()
    subscriber.close(CloseReason.END)
    subscriber.close(CloseReason.DISCONNECT)

    assert (subscriber.state, subscriber.closed) == (State.CLOSED, CloseReason.END)


def test_names_only_what_was_sent_without_a_name():
    subscriber = _live(event_name="chat")
    named = Publication.parse(b"event: own\ndata: y\nid: 1800000000000000-2-0123abcd\n\n")
    assert named is not None
    subscriber.receive(_publication(1))
    subscriber.receive(named)

    first, second = subscriber.take(0.0).frames

    assert first == b"event: chat\ndata: x\nid: 1800000000000000-1-00000001\n\n"
    assert second == named.frame


def _resumed(redis: RedisModel, *, after: int = 0, event_name: str | None = None) -> list[bytes]:
    """What a client gets that resumes after an entry of the log, its first block aside."""
    subscriber = _subscriber(cursor=redis.log[after].position, event_name=event_name)
    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)
    assert subscriber.position == redis.newest
    return subscriber.take(0.0).frames[2:]


@pytest.fixture
def redis() -> RedisModel:
    redis = RedisModel()
    for _ in range(6):
        redis.send()
    return redis


def test_resumes_with_the_very_frames_of_the_log(redis: RedisModel):
    assert _resumed(redis, after=2) == [entry.publication.frame for entry in redis.log[3:]]


def test_a_hole_between_events_is_a_reset_where_it_is(redis: RedisModel):
    lost = redis.log.pop(3)

    first, second, reset, *rest = _resumed(redis)

    assert [first, second] == [entry.publication.frame for entry in redis.log[1:3]]
    assert rest == [entry.publication.frame for entry in redis.log[3:]]
    assert reset.startswith(b"event: stream-reset\n")
    assert reset.endswith(f"\nid: {lost.position}\n\n".encode())
    assert f'"requested":"{redis.log[2].position}"' in reset.decode()
    assert f'"first":"{redis.log[3].position}"' in reset.decode()


@pytest.mark.parametrize("foreign", [1, 3, 5])
def test_a_foreign_entry_between_events_is_skipped(redis: RedisModel, foreign: int):
    position = redis.log[foreign].position._replace(tag=NO_TAG)
    redis.log[foreign] = Entry(position, None, NO_TAG)

    frames = _resumed(redis)

    assert frames == [e.publication.frame for e in redis.log[1:] if e.publication]


def test_a_foreign_entry_before_all_that_is_kept_is_no_gap(redis: RedisModel):
    redis.log[0] = Entry(redis.log[0].position._replace(tag=NO_TAG), None, NO_TAG)
    subscriber = Subscriber(
        "s", _Writer(), LIMITS, cursor=None, replay="all", event_name=None, pacing=None, now=0.0
    )

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert subscriber.take(0.0).frames == [e.publication.frame for e in redis.log[1:]]


def test_a_hole_beside_a_foreign_entry_is_a_reset(redis: RedisModel):
    redis.log[3] = Entry(redis.log[3].position._replace(tag=NO_TAG), None, NO_TAG)
    del redis.log[2]

    frames = _resumed(redis)

    assert [b"event: stream-reset\n" in frame for frame in frames] == [False, True, False, False]


def test_names_each_event_of_a_resume_that_was_sent_without_a_name(redis: RedisModel):
    own = Publication.parse(f"event: own\ndata: y\nid: {redis.log[3].position}\n\n".encode())
    redis.log[3] = redis.log[3]._replace(publication=own)

    frames = _resumed(redis, event_name="chat")

    names = [read_frame("s", frame).name for frame in frames]
    assert names == ["chat", "chat", "own", "chat", "chat"]
    assert frames[2] == own.frame
    assert frames == [entry.publication.named("chat") for entry in redis.log[1:]]


def test_pages_end_in_the_middle_of_what_follows_and_join_without_a_seam(redis: RedisModel):
    limits = dataclasses.replace(LIMITS, page_events=2)
    subscriber = Subscriber(
        "s",
        _Writer(),
        limits,
        cursor=redis.log[0].position,
        replay=0,
        event_name=None,
        pacing=None,
        now=0.0,
    )
    pages: list[list[bytes]] = []
    while not subscriber.is_caught_up:
        subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)
        pages.append(subscriber.take(0.0).frames)

    assert [len(page) for page in pages] == [2, 2, 1]
    frames = [frame for page in pages for frame in page]
    assert frames == [entry.publication.frame for entry in redis.log[1:]]


def test_resuming_at_the_end_has_nothing_to_say():
    redis = RedisModel()
    redis.send(is_end=True)
    subscriber = _subscriber(cursor=redis.log[-1].position)

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert (subscriber.closed, subscriber.start) == (CloseReason.END, None)


@pytest.mark.parametrize("replay", [0, 1, "all"])
def test_a_newcomer_to_an_ended_stream_gets_replay_and_end(replay: int | str):
    redis = RedisModel()
    redis.send()
    redis.send(is_end=True)
    subscriber = Subscriber(
        "s", _Writer(), LIMITS, cursor=None, replay=replay, event_name=None, pacing=None, now=0.0
    )

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert subscriber.closed is CloseReason.END
    assert len(subscriber.take(0.0).frames) == (1 if replay == 0 else 2)


def test_what_is_trimmed_under_a_slow_client_behind_a_reset_is_a_gap_of_its_own():
    """It was told of a failover, and then something else was lost."""
    redis = RedisModel()
    for _ in range(30):
        redis.send()
    ahead = redis.log[-1].position._replace(seq=110)
    subscriber = _subscriber(cursor=ahead)
    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)
    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)
    assert subscriber.position == redis.log[9].position
    for _ in range(40):
        redis.send()
    redis.trim(11)

    subscriber.receive_history(_page(redis, subscriber), 0.0, asked_at=0.0)

    assert subscriber.resets == 2
