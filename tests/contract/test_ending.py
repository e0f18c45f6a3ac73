"""A stream ends once, durably, and its id can be used anew."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest

from streamy_redis import StreamEnded, StreamyError
from tests.deadline import Deadline

from .conftest import EventId, Shell

pytestmark = pytest.mark.each_server


def test_the_first_call_ends_it_and_says_so(streams: Any):
    streams.send_event("room", "x")

    assert streams.end_stream("room") is True
    assert streams.end_stream("room") is False
    assert streams.info("room").ended


def test_a_stream_without_events_can_be_ended(shell: Shell, streams: Any):
    assert streams.end_stream("room", "nothing to see") is True

    received = shell.reader(streams, "room").wait_ended()
    assert [(e.kind, e.name, e.data) for e in received] == [("end", "stream-end", "nothing to see")]


def test_subscribers_receive_the_end_after_the_last_event_and_stop(shell: Shell, streams: Any):
    readers = [shell.reader(streams, "room"), shell.reader(shell.manager(), "room")]
    event_id = streams.send_event("room", "last")

    streams.end_stream("room", {"why": "done"})

    for reader in readers:
        received = reader.wait_ended()
        assert [e.kind for e in received] == ["event", "end"]
        assert received[0].id == event_id
        assert received[1].data == '{"why":"done"}'
        assert EventId.parse(received[1].id).seq == EventId.parse(event_id).seq + 1


def test_an_end_without_data_has_an_object_that_pages_can_parse(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    streams.end_stream("room")

    assert reader.wait_ended()[0].data == "{}"


def test_sending_after_the_end_is_refused(streams: Any):
    streams.end_stream("room")

    with pytest.raises(StreamEnded, match="room") as caught:
        streams.send_event("room", "x")
    with pytest.raises(StreamEnded):
        streams.send_events("room", ["x", "y"])

    assert isinstance(caught.value, StreamyError)
    assert caught.value.stream_id == "room"
    assert streams.info("room").length == 1


def test_ending_one_stream_leaves_others_open(shell: Shell, streams: Any):
    reader = shell.reader(streams, "other")
    streams.end_stream("room")

    streams.send_event("other", "still here")

    assert reader.wait_for(1)[0].data == "still here"


def test_of_many_who_end_it_one_did(shell: Shell, streams: Any):
    managers = [streams, shell.manager(), shell.manager()]
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda m=m: answers.append(m.end_stream("room"))) for m in managers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert sorted(answers) == [False, False, True]


def test_a_newcomer_to_an_ended_stream_gets_replay_and_end(shell: Shell, streams: Any):
    streams.send_events("room", ["a", "b", "c"])
    streams.end_stream("room", "bye")

    assert [e.data for e in shell.reader(streams, "room").wait_ended()] == ["bye"]
    assert [e.data for e in shell.reader(streams, "room", replay=2).wait_ended()] == [
        "b",
        "c",
        "bye",
    ]
    everything = shell.reader(streams, "room", replay="all").wait_ended()
    assert [e.data for e in everything] == ["a", "b", "c", "bye"]
    assert everything[-1].kind == "end"


def test_a_cursor_at_the_end_ends_at_once_without_an_event(shell: Shell, streams: Any):
    streams.send_event("room", "x")
    streams.end_stream("room")
    end = shell.reader(streams, "room").wait_ended()[-1]

    assert shell.reader(streams, "room", last_event_id=end.id).wait_ended() == []


def test_a_cursor_before_the_end_gets_what_is_missing_and_the_end(shell: Shell, streams: Any):
    ids = streams.send_events("room", ["a", "b"])
    streams.end_stream("room", "bye")

    resumed = shell.reader(streams, "room", last_event_id=ids[0]).wait_ended()

    assert [(e.kind, e.data) for e in resumed] == [("event", "b"), ("end", "bye")]


def test_an_end_is_forgotten_ended_ttl_later(shell: Shell):
    streams = shell.manager(ended_ttl=0.2)
    first = streams.send_event("room", "x")
    streams.end_stream("room")
    assert 0 < streams.info("room").ttl <= 0.2

    Deadline(5).until(lambda: not streams.info("room").exists)

    again = streams.send_event("room", "y")
    assert EventId.parse(again).epoch > EventId.parse(first).epoch
    assert EventId.parse(again).seq == 1
    assert not streams.info("room").ended


def test_deleting_forgets_history_and_end(streams: Any):
    assert streams.delete_stream("room") is False
    streams.send_event("room", "x")
    assert streams.delete_stream("room") is True
    assert streams.delete_stream("room") is False
    streams.end_stream("room")
    assert streams.delete_stream("room") is True

    assert not streams.info("room").exists


def test_a_deleted_id_begins_a_newer_life(streams: Any):
    lives = []
    for _ in range(20):
        lives.append(EventId.parse(streams.send_event("room", "x")))
        streams.delete_stream("room")

    assert all(a.epoch < b.epoch for a, b in itertools.pairwise(lives))
    assert {life.seq for life in lives} == {1}


def test_a_subscriber_of_a_deleted_stream_receives_its_next_life(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    streams.send_event("room", "old")
    reader.wait_for(1)
    streams.delete_stream("room")

    new = streams.send_event("room", "new")

    Deadline(10).until(lambda: new in reader.ids, lambda: reader.received)
    assert reader.data.count("new") == 1
    assert reader.kinds.count("reset") == 1
    assert reader.kinds[-2:] == ["reset", "event"]
