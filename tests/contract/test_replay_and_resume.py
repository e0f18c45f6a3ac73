"""Where a subscription begins, and how it learns that something can't be shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamy_redis import InvalidEvent
from tests.deadline import Deadline

from .conftest import EventId, Shell

pytestmark = pytest.mark.each_server


def with_tag(event_id: str, tag: str) -> str:
    return f"{event_id.rpartition('-')[0]}-{tag}"


def position(event_id: str) -> str:
    return event_id.rpartition("-")[0]


# -- replay ---------------------------------------------------------------------------------------


def test_a_newcomer_receives_from_now_on(shell: Shell, streams: Any):
    streams.send_events("room", ["old", "older"])
    reader = shell.reader(streams, "room")

    streams.send_event("room", "new")

    reader.wait_for(1)
    assert reader.data == ["new"]
    assert reader.gets_no_more()


@pytest.mark.parametrize(
    ("replay", "seen"),
    [(1, ["d"]), (3, ["b", "c", "d"]), (4, ["a", "b", "c", "d"]), (99, ["a", "b", "c", "d"])],
)
def test_replays_the_newest_events(shell: Shell, streams: Any, replay: int, seen: list[str]):
    streams.send_events("room", ["a", "b", "c", "d"])

    reader = shell.reader(streams, "room", replay=replay)
    streams.send_event("room", "live")

    reader.wait_for(len(seen) + 1)
    assert reader.data == [*seen, "live"]


def test_replays_the_whole_history(shell: Shell, streams: Any):
    streams.send_events("room", ["a", "b", "c"])

    reader = shell.reader(streams, "room", replay="all")

    reader.wait_for(3)
    assert reader.data == ["a", "b", "c"]


@pytest.mark.parametrize("replay", [0, 5, "all"])
def test_replay_of_a_stream_without_events_is_empty(shell: Shell, streams: Any, replay: Any):
    reader = shell.reader(streams, "room", replay=replay)

    streams.send_event("room", "first")

    reader.wait_for(1)
    assert (reader.data, reader.kinds) == (["first"], ["event"])


@pytest.mark.parametrize("replay", [-1, True, 1.5, "some", None], ids=repr)
@pytest.mark.refusal
def test_refuses_other_replays(shell: Shell, replay: Any):
    nowhere = shell.manager("redis://127.0.0.1:1/0")

    with pytest.raises((InvalidEvent, TypeError), match="replay"):
        nowhere.subscribe("room", replay=replay)


def test_a_replay_of_many_pages_joins_the_live_events(shell: Shell):
    streams = shell.manager(history_length=5000)
    for start in range(0, 3000, 500):
        streams.send_events("room", [str(n) for n in range(start, start + 500)])

    reader = shell.reader(streams, "room", replay="all")
    for n in range(3000, 3100):
        streams.send_event("room", str(n))

    reader.wait_for(3100, timeout=20)
    assert reader.data == [str(n) for n in range(3100)]


# -- resume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_resumes_after_its_cursor(shell: Shell, streams: Any, after: int):
    ids = streams.send_events("room", ["0", "1", "2", "3"])

    reader = shell.reader(streams, "room", last_event_id=ids[after])
    streams.send_event("room", "live")

    expected = ["0", "1", "2", "3", "live"][after + 1 :]
    reader.wait_for(len(expected))
    assert reader.data == expected
    assert reader.gets_no_more(0.1)


def test_the_cursor_wins_over_replay(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b", "c"])

    reader = shell.reader(streams, "room", last_event_id=ids[1], replay="all")

    reader.wait_for(1)
    assert reader.data == ["c"]


def test_a_cursor_without_a_tag_is_not_compared(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b", "c"])

    reader = shell.reader(streams, "room", last_event_id=with_tag(ids[0], "0"))

    reader.wait_for(2)
    assert (reader.data, reader.kinds) == (["b", "c"], ["event", "event"])


def test_the_position_before_the_first_event_is_a_cursor(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b"])
    epoch = EventId.parse(ids[0]).epoch

    reader = shell.reader(streams, "room", last_event_id=f"{epoch}-0-0")

    reader.wait_for(2)
    assert (reader.data, reader.kinds) == (["a", "b"], ["event", "event"])


def test_a_start_cursor_receives_what_was_sent_later(shell: Shell, streams: Any, store: Any):
    seconds, micros = store.time()
    cursor = f"{seconds * 1_000_000 + micros}-0-0"
    streams.send_events("room", ["a", "b"])

    reader = shell.reader(streams, "room", last_event_id=cursor)

    reader.wait_for(2)
    assert (reader.data, reader.kinds) == (["a", "b"], ["event", "event"])


def test_a_start_cursor_of_a_stream_that_still_has_no_events(
    shell: Shell, streams: Any, store: Any
):
    seconds, micros = store.time()
    reader = shell.reader(streams, "room", last_event_id=f"{seconds * 1_000_000 + micros}-0-0")

    streams.send_event("room", "first")

    reader.wait_for(1)
    assert (reader.data, reader.kinds) == (["first"], ["event"])


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "$",
        " 1-0",
        "0",
        "-",
        "+",
        "1-0",
        "42",
        "nonsense",
        "1700000000000000-1",
        "1700000000000000-1-",
        "1700000000000000-1-XYZ",
        "1700000000000000-1-ABCDEF01",
        "1700000000000000-01-0123abcd",
        "01700000000000000-1-0123abcd",
        "1700000000000000-1-0123abcd ",
        " 1700000000000000-1-0123abcd",
        "1700000000000000-1-0123abcd\n",
        "1700000000000000--1-0123abcd",
        "٣700000000000000-1-0123abcd",
        "9" * 400,
        "9" * 30 + "-1-0123abcd",
        "\ud800",
    ],
    ids=lambda cursor: ascii(cursor)[:30],
)
def test_a_bad_cursor_is_no_cursor(shell: Shell, streams: Any, cursor: str):
    streams.send_events("room", ["a", "b", "c"])

    reader = shell.reader(streams, "room", last_event_id=cursor, replay=1)
    streams.send_event("room", "live")

    reader.wait_for(2)
    assert (reader.data, reader.kinds) == (["c", "live"], ["event", "event"])


# -- gaps -----------------------------------------------------------------------------------------


def reset_of(reader: Any, *, requested: str, first: str | None, followed_by: list[str]) -> str:
    """The reason of the one reset, which comes before anything newer."""
    received = reader.wait_for(1 + len(followed_by))
    assert [e.kind for e in received] == ["reset"] + ["event"] * len(followed_by)
    assert [e.data for e in received[1:]] == followed_by
    assert received[0].name == "stream-reset"
    told = json.loads(received[0].data)
    assert set(told) == {"reason", "requested", "first"}
    assert told["requested"] == requested
    assert told["first"] == first
    if first is not None:
        # Its own id is just before that: a client cut off here comes back to the first event.
        at, next_ = EventId.parse(received[0].id), EventId.parse(first)
        assert (at.epoch, at.seq + 1) == (next_.epoch, next_.seq)
    assert told["reason"]
    return told["reason"]


def test_a_trimmed_history_is_reset_to_what_is_kept(shell: Shell):
    streams = shell.manager(history_length=3)
    ids = [streams.send_event("room", str(n)) for n in range(6)]

    reader = shell.reader(streams, "room", last_event_id=ids[0])

    reason = reset_of(reader, requested=ids[0], first=ids[3], followed_by=["3", "4", "5"])
    assert reason == "trimmed"


def test_a_history_trimmed_exactly_to_the_cursor_is_no_gap(shell: Shell):
    streams = shell.manager(history_length=3)
    ids = [streams.send_event("room", str(n)) for n in range(6)]

    reader = shell.reader(streams, "room", last_event_id=ids[2])

    reader.wait_for(3)
    assert (reader.data, reader.kinds) == (["3", "4", "5"], ["event"] * 3)


def test_the_successor_of_a_trimmed_cursor_remembers_its_tag(shell: Shell):
    streams = shell.manager(history_length=3)
    ids = [streams.send_event("room", str(n)) for n in range(6)]
    other = with_tag(ids[2], "00000000")

    reader = shell.reader(streams, "room", last_event_id=other)

    reset_of(reader, requested=other, first=ids[3], followed_by=["3", "4", "5"])


def test_a_cursor_whose_own_event_was_trimmed_with_nothing_after_it_is_no_gap(
    shell: Shell, streams: Any, store: Any
):
    ids = streams.send_events("room", ["a", "b"])
    store.xtrim(shell.log("room"), maxlen=0, approximate=False)
    reader = shell.reader(streams, "room", last_event_id=ids[1])
    assert reader.gets_no_more(0.2)


def test_another_tag_at_the_cursor_is_a_rewritten_history(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b", "c"])
    other = with_tag(ids[1], "00000000")

    reader = shell.reader(streams, "room", last_event_id=other)

    # Other events stand at these positions: nothing that the client has can be trusted.
    reset_of(reader, requested=other, first=ids[0], followed_by=["a", "b", "c"])


def test_a_cursor_in_the_future_of_the_log_is_reset(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b"])
    ahead = f"{EventId.parse(ids[0]).epoch}-9-0123abcd"

    reader = shell.reader(streams, "room", last_event_id=ahead)

    reset_of(reader, requested=ahead, first=ids[0], followed_by=["a", "b"])


def test_a_cursor_of_an_older_life_is_reset(shell: Shell, streams: Any):
    old = streams.send_event("room", "old")
    streams.delete_stream("room")
    ids = streams.send_events("room", ["a", "b"])

    reader = shell.reader(streams, "room", last_event_id=old)

    reset_of(reader, requested=old, first=ids[0], followed_by=["a", "b"])


def test_a_cursor_of_a_newer_life_is_reset(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b"])
    newer = f"{EventId.parse(ids[0]).epoch + 10_000_000}-1-0123abcd"

    reader = shell.reader(streams, "room", last_event_id=newer)

    reset_of(reader, requested=newer, first=ids[0], followed_by=["a", "b"])


def test_a_cursor_without_any_history_is_reset_and_goes_on(shell: Shell, streams: Any):
    old = streams.send_event("room", "old")
    streams.delete_stream("room")

    reader = shell.reader(streams, "room", last_event_id=old)
    reset_of(reader, requested=old, first=None, followed_by=[])
    streams.send_event("room", "new")

    reader.wait_for(2)
    assert (reader.data[1:], reader.kinds) == (["new"], ["reset", "event"])


def test_a_start_cursor_older_than_the_ttls_is_a_gap(shell: Shell, store: Any):
    streams = shell.manager(history_ttl=100, ended_ttl=50)
    seconds, micros = store.time()
    now = seconds * 1_000_000 + micros
    young, old = f"{now - 40_000_000}-0-0", f"{now - 60_000_000}-0-0"
    event_id = streams.send_event("room", "a")

    fine = shell.reader(streams, "room", last_event_id=young)
    gap = shell.reader(streams, "room", last_event_id=old)

    assert [e.kind for e in fine.wait_for(1)] == ["event"]
    reset_of(gap, requested=old, first=event_id, followed_by=["a"])


def test_the_id_of_a_reset_is_a_cursor(shell: Shell):
    streams = shell.manager(history_length=2)
    ids = [streams.send_event("room", str(n)) for n in range(5)]
    reset = shell.reader(streams, "room", last_event_id=ids[0]).wait_for(1)[0]

    reader = shell.reader(streams, "room", last_event_id=reset.id)

    reader.wait_for(2)
    assert (reader.data, reader.kinds) == (["3", "4"], ["event", "event"])


@pytest.mark.parametrize("how", ["delete", "flush", "trim"])
def test_a_live_subscriber_whose_history_is_destroyed_gets_one_reset(
    shell: Shell, streams: Any, store: Any, how: str
):
    reader = shell.reader(streams, "room")
    ids = streams.send_events("room", ["a", "b"])
    reader.wait_for(2)

    if how == "trim":
        # Events that it never saw, since nobody published them, and that are gone at once.
        epoch, seq, _tag = ids[1].split("-")
        for n in range(1, 4):
            store.xadd(shell.log("room"), {"x": "y"}, id=f"{epoch}-{int(seq) + n}")
        store.xtrim(shell.log("room"), maxlen=0, approximate=False)
    else:
        store.delete(shell.log("room"))
    new = streams.send_event("room", "new")

    reader.wait_for(4)
    assert reader.gets_no_more()
    assert reader.kinds == ["event", "event", "reset", "event"]
    assert reader.received[-1].id == new
    told = json.loads(reader.received[2].data)
    assert (told["requested"], told["first"]) == (ids[1], new)


def test_a_history_that_expired_under_a_live_subscriber_is_no_gap(shell: Shell):
    streams = shell.manager(history_ttl=0.3, position_check_interval=0.1)
    reader = shell.reader(streams, "room")
    streams.send_event("room", "a")
    reader.wait_for(1)

    Deadline(5).until(lambda: not streams.info("room").exists)
    assert reader.gets_no_more(0.25)
    streams.send_event("room", "b")

    reader.wait_for(2)
    assert (reader.data, reader.kinds) == (["a", "b"], ["event", "event"])


@pytest.mark.real_server
def test_a_history_is_read_while_redis_has_no_memory_left(shell: Shell, streams: Any, store: Any):
    """Redis refuses transactions then (6.2 and 7), since commands that wait take memory."""
    streams.send_events("room", [str(n) for n in range(100)])
    store.config_set("maxmemory", 1)
    try:
        reader = shell.reader(streams, "room", replay="all")
        reader.wait_for(100)
    finally:
        store.config_set("maxmemory", 0)
