"""The reply of a send is lost after it ran: stored once, and the caller learns the right thing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.proxy import LossyProxy

from .conftest import EventId, Shell

pytestmark = pytest.mark.one_server


@pytest.fixture
def proxy(shell: Shell) -> Iterator[LossyProxy]:
    with LossyProxy(urlsplit(shell.url).port or 6379) as proxy:
        yield proxy
        # Before the proxy goes: its clients would see connections break.
        shell.close()


@pytest.fixture
def behind(shell: Shell, proxy: LossyProxy) -> Any:
    """A manager whose connections the proxy may cut; warm, so that no script is loaded anew."""
    streams = shell.manager(proxy.url)
    streams.send_event("warm up", "x")
    streams.end_stream("warm up")
    return streams


def test_an_event_is_stored_once_and_its_id_returned(
    shell: Shell, behind: Any, proxy: LossyProxy, store: Any
):
    reader = shell.reader(shell.manager(), "room")
    behind.send_event("room", "before")
    proxy.lose_reply_to(b"EVALSHA")

    event_id = behind.send_event("room", "x")

    assert proxy.lost == 1
    assert behind.info("room").length == 2
    assert reader.wait_for(2)[1].id == event_id
    assert reader.gets_no_more(0.2)


def test_a_batch_is_stored_once_and_its_ids_returned(shell: Shell, behind: Any, proxy: LossyProxy):
    proxy.lose_reply_to(b"EVALSHA")

    ids = behind.send_events("room", ["a", "b", "c"])

    assert proxy.lost == 1
    assert [EventId.parse(i).seq for i in ids] == [1, 2, 3]
    replayed = shell.reader(behind, "room", replay="all").wait_for(3)
    assert [e.id for e in replayed] == ids
    assert behind.info("room").length == 3


def test_an_end_that_this_call_made_is_true_although_it_was_asked_twice(
    shell: Shell, behind: Any, proxy: LossyProxy
):
    behind.send_event("room", "x")
    proxy.lose_reply_to(b"EVALSHA")

    assert behind.end_stream("room", "bye") is True

    assert proxy.lost == 1
    assert behind.info("room").length == 2
    assert behind.end_stream("room") is False


def test_the_last_event_before_an_end_is_found_behind_it(
    shell: Shell, behind: Any, proxy: LossyProxy
):
    """Between the send and its retry somebody else ends the stream."""
    other = shell.manager()
    behind.send_event("room", "x", idempotency_key="k")
    other.end_stream("room")
    proxy.lose_reply_to(b"EVALSHA")

    event_id = behind.send_event("room", "x", idempotency_key="k")

    assert EventId.parse(event_id).seq == 1


def test_without_history_a_repeat_is_delivered_again(shell: Shell, proxy: LossyProxy, behind: Any):
    """Documented: at least once, since there is nothing to find a repeat in."""
    bare = shell.manager(proxy.url, history_length=0)
    reader = shell.reader(shell.manager(history_length=0), "room")
    bare.send_event("other", "warm up")
    proxy.lose_reply_to(b"EVALSHA")

    bare.send_event("room", "x")

    assert [e.data for e in reader.wait_for(2)] == ["x", "x"]


def test_many_losses_at_random_store_each_event_once(shell: Shell, behind: Any, proxy: LossyProxy):
    reader = shell.reader(shell.manager(), "room")
    sent = []
    for n in range(60):
        if n % 3 == 0:
            proxy.lose_reply_to(b"EVALSHA")
        sent.append(behind.send_event("room", str(n)))

    reader.wait_for(60)
    assert proxy.lost == 20
    assert reader.ids == sent
    assert reader.data == [str(n) for n in range(60)]
