"""A send that is repeated with its key is stored once."""

from __future__ import annotations

from typing import Any

import pytest

from streamy_redis import InvalidEvent

from .conftest import Shell

pytestmark = pytest.mark.each_server


def test_a_repeat_returns_the_same_id_and_stores_nothing(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    first = streams.send_event("room", "x", idempotency_key="order 7")
    other = streams.send_event("room", "between")

    assert streams.send_event("room", "x", idempotency_key="order 7") == first

    assert streams.info("room").length == 2
    reader.wait_for(2)
    assert reader.ids == [first, other]
    assert reader.gets_no_more()


def test_a_repeat_from_another_manager_is_found(shell: Shell, streams: Any):
    first = streams.send_event("room", "x", idempotency_key="k")

    assert shell.manager().send_event("room", "x", idempotency_key="k") == first


def test_keys_belong_to_one_stream(streams: Any):
    here = streams.send_event("here", "x", idempotency_key="k")
    there = streams.send_event("there", "x", idempotency_key="k")

    assert here.rpartition("-")[0] != there.rpartition("-")[0]
    assert streams.info("there").length == 1


def test_other_keys_store_other_events(streams: Any):
    ids = {streams.send_event("room", "x", idempotency_key=f"k{n}") for n in range(5)}

    assert len(ids) == 5


def test_a_repeat_after_the_end_returns_the_same_id(streams: Any):
    first = streams.send_event("room", "x", idempotency_key="k")
    streams.end_stream("room")

    assert streams.send_event("room", "x", idempotency_key="k") == first
    assert streams.info("room").length == 2


def test_a_repeat_is_found_among_the_newest_history_length_entries(shell: Shell):
    streams = shell.manager(history_length=600)
    first = streams.send_event("room", "x", idempotency_key="k")
    streams.send_events("room", [str(n) for n in range(599)])

    assert streams.send_event("room", "x", idempotency_key="k") == first
    assert streams.info("room").length == 600


def test_a_key_whose_event_was_trimmed_stores_a_new_one(shell: Shell):
    streams = shell.manager(history_length=2)
    first = streams.send_event("room", "x", idempotency_key="k")
    streams.send_events("room", ["a", "b"])

    assert streams.send_event("room", "x", idempotency_key="k") != first


@pytest.mark.parametrize("key", ["", 7, "\ud800", b"k"], ids=repr)
@pytest.mark.refusal
def test_refuses_a_key_that_is_no_text(streams: Any, key: Any):
    with pytest.raises(InvalidEvent, match="idempotency_key"):
        streams.send_event("room", "x", idempotency_key=key)
