"""history_length=0: Pub/Sub only, without ids, yet with a durable end."""

from __future__ import annotations

from typing import Any

import pytest

from streamy_redis import StreamEnded
from tests.stamps import keys

from .conftest import Shell

pytestmark = pytest.mark.each_server


@pytest.fixture
def bare(shell: Shell) -> Any:
    return shell.manager(history_length=0)


def test_events_arrive_in_order_without_ids(shell: Shell, bare: Any):
    reader = shell.reader(bare, "room")

    ids = [bare.send_event("room", str(n)) for n in range(10)]
    ids += bare.send_events("room", ["10", "11"])

    reader.wait_for(12)
    assert reader.data == [str(n) for n in range(12)]
    assert set(ids) == {""}
    assert set(reader.ids) == {""}


def test_nothing_is_stored(shell: Shell, bare: Any, store: Any):
    bare.send_event("room", "x")

    assert list(store.scan_iter(f"{shell.prefix}*")) == []
    assert not bare.info("room").exists


def test_a_comment_stands_where_the_id_would(shell: Shell, bare: Any, store: Any):
    with store.pubsub() as pubsub:
        pubsub.subscribe(shell.channel("room"))
        pubsub.get_message(timeout=5)
        key = next(keys(are_stamped=False))
        bare.send_event("room", "x", "joined", idempotency_key=key)
        assert pubsub.get_message(timeout=5)["data"] == b"event: joined\ndata: x\n:\n\n"


def test_junk_is_told_from_a_publication(shell: Shell, bare: Any, store: Any):
    reader = shell.reader(bare, "room")

    for junk in (b"", b"hello", b"data: x\n\n", b":\n\n", b"data: x\n: \n\n", b"\xff"):
        store.publish(shell.channel("room"), junk)
    bare.send_event("room", "real")

    assert [e.data for e in reader.wait_for(1)] == ["real"]
    assert reader.gets_no_more(0.1)


def test_a_replay_or_cursor_shows_nothing_old(shell: Shell, bare: Any):
    bare.send_event("room", "old")
    reader = shell.reader(bare, "room", replay="all")

    bare.send_event("room", "new")

    assert [e.data for e in reader.wait_for(1)] == ["new"]


def test_its_end_is_durable_and_has_an_id(shell: Shell, bare: Any):
    reader = shell.reader(bare, "room")
    bare.send_event("room", "x")
    assert bare.end_stream("room", "bye") is True
    assert bare.end_stream("room") is False

    live = reader.wait_ended()
    late = shell.reader(bare, "room").wait_ended()

    assert [(e.kind, e.data) for e in live] == [("event", "x"), ("end", "bye")]
    assert [(e.kind, e.data) for e in late] == [("end", "bye")]
    assert live[-1].id == late[0].id != ""
    assert shell.reader(bare, "room", last_event_id=late[0].id).wait_ended() == []
    with pytest.raises(StreamEnded):
        bare.send_event("room", "y")


def test_a_deleted_stream_can_be_used_anew(shell: Shell, bare: Any):
    bare.end_stream("room")
    assert bare.delete_stream("room") is True
    reader = shell.reader(bare, "room")

    bare.send_event("room", "new life")

    assert [e.data for e in reader.wait_for(1)] == ["new life"]
