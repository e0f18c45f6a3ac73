"""The checker has teeth."""

from __future__ import annotations

from .event_stream import MessageEvent
from .exactly_once import Delivery, SentLog

EPOCH = 1_700_000_000_000_000


def event_id(seq: int, epoch: int = EPOCH) -> str:
    return f"{epoch}-{seq}-0123abcd"


def sent(*seqs: int) -> SentLog:
    log = SentLog()
    for seq in seqs:
        log.returned(event_id(seq), str(seq))
    return log


def saw(*seqs: int, open_at: int = 0) -> list[MessageEvent]:
    opened = MessageEvent("stream-open", "{}", event_id(open_at))
    return [opened, *(MessageEvent("message", str(seq), event_id(seq)) for seq in seqs)]


def test_accepts_each_event_once_in_order():
    Delivery(sent(1, 2, 3), saw(1, 2, 3)).assert_exactly_once()


def test_owes_nothing_from_before_the_first_stream_open():
    Delivery(sent(1, 2, 3), saw(3, open_at=2)).assert_exactly_once()


def test_sees_a_missing_event_at_each_place():
    assert Delivery(sent(1, 2, 3), saw(2, 3)).missing == [event_id(1)]
    assert Delivery(sent(1, 2, 3), saw(1, 3)).missing == [event_id(2)]
    assert Delivery(sent(1, 2, 3), saw(1, 2)).missing == [event_id(3)]
    assert Delivery(sent(1), []).missing == [event_id(1)]


def test_sees_a_repeated_event():
    assert Delivery(sent(1, 2), saw(1, 2, 1)).repeated == [event_id(1)]


def test_sees_events_out_of_order():
    assert Delivery(sent(1, 2, 3), saw(1, 3, 2)).out_of_order == [event_id(2)]


def test_sees_a_foreign_event_and_a_changed_payload():
    assert Delivery(sent(1), saw(1, 2)).foreign == [event_id(2)]
    changed = [saw()[0], MessageEvent("message", "other", event_id(1))]
    assert Delivery(sent(1), changed).foreign == [event_id(1)]


def test_an_unanswered_send_may_arrive_once_or_never():
    log = sent(1, 3)
    log.unsure("2")

    Delivery(log, saw(1, 3)).assert_exactly_once()
    Delivery(log, saw(1, 2, 3)).assert_exactly_once()
    twice = [*saw(1, 2, 3), MessageEvent("message", "2", event_id(4))]
    assert Delivery(log, twice).foreign == [event_id(4)]


def test_a_reset_forgives_what_lies_before_it_and_nothing_after():
    reset = MessageEvent("stream-reset", "{}", event_id(3))
    opened, first, *_ = saw(1)
    after = saw(4, 6)[1:]

    delivery = Delivery(sent(1, 2, 3, 4, 5, 6), [opened, first, reset, *after])

    assert (delivery.resets, delivery.skipped) == (1, [event_id(2), event_id(3)])
    assert delivery.missing == [event_id(5)]
