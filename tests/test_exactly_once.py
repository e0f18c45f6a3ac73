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


AFTER = EPOCH + 1


def after_a_failover(*seen: int | str) -> Delivery:
    """1 and 2 were kept, 3 and 4 lost; then 12 and 13, of another life, were sent.

    Args:
        seen: what a client saw, in that order; "reset 10" is one with the id of 10.
    """

    def id_of(number: int) -> str:
        return event_id(number, AFTER if number >= 10 else EPOCH)

    def event(of: int | str) -> MessageEvent:
        if isinstance(of, str):
            return MessageEvent("stream-reset", "{}", id_of(int(of.split()[1])))
        return MessageEvent("message", str(of), id_of(of))

    log = SentLog()
    for number in (1, 2, 3, 4, 12, 13):
        log.returned(id_of(number), str(number))
    log.lose([id_of(3), id_of(4)])
    return Delivery(log, [*saw(), *map(event, seen)])


def test_what_a_failover_lost_is_forgiven_where_a_reset_stands_in_its_place():
    behind = after_a_failover(1, 2, "reset 11", 12, 13)
    behind.assert_exactly_once(resets=1)
    assert behind.skipped == [event_id(3), event_id(4)]
    after_a_failover(1, 2, 3, "reset 11", 12, 13).assert_exactly_once(resets=1)


def test_who_is_ahead_of_a_failover_is_shown_again_what_was_kept():
    after_a_failover(1, 2, 3, 4, "reset 0", 1, 2, 12, 13).assert_exactly_once(resets=1)
    partly = after_a_failover(1, 2, 3, "reset 0", 1, 2, 12, 13)
    partly.assert_exactly_once(resets=1)
    assert partly.skipped == [event_id(4)]
    nothing_new = after_a_failover(1, 2, 3, "reset 0", 1, 2)
    assert nothing_new.skipped == [event_id(4)]
    assert nothing_new.missing == [event_id(12, AFTER), event_id(13, AFTER)]


def test_sees_that_what_a_failover_lost_was_skipped_in_silence():
    lost = [event_id(3), event_id(4)]
    assert after_a_failover(1, 2, 12, 13).missing == lost
    # A reset that stands elsewhere tells of something else.
    assert after_a_failover(1, "reset 1", 2, 12, 13).missing == lost
    assert after_a_failover(1, 2, 12, "reset 12", 13).missing == lost
    assert after_a_failover(1, 2, 3, 12, 13).missing == lost[1:]


def test_sees_that_what_a_failover_kept_is_missing():
    assert after_a_failover(1, "reset 11", 12, 13).missing == [event_id(2)]
    assert after_a_failover(1, 2, 3, 4, "reset 0", 2, 12, 13).missing == [event_id(1)]
    assert after_a_failover(1, 2, 3, 4, "reset 11", 13).missing == [event_id(12, AFTER)]


def test_sees_a_repeat_after_a_failover():
    twice = [event_id(1), event_id(2)]
    assert after_a_failover(1, 2, 3, 4, 1, 2, 12, 13).repeated == twice
    # Shown again once, and by nobody but who is ahead.
    assert after_a_failover(1, 2, 3, "reset 0", 1, 2, 1, 2, 12, 13).repeated == twice
    assert after_a_failover(1, 2, "reset 0", 1, 2, 12, 13).repeated == twice
    # What is lost can't come again.
    assert after_a_failover(1, 2, 3, "reset 0", 1, 2, 3, 12).repeated == [event_id(3)]


def test_sees_that_a_reset_tells_of_one_failover_and_not_of_the_next():
    log = SentLog()
    ids = [event_id(1), event_id(2), event_id(2, AFTER), event_id(3, AFTER), event_id(2, AFTER + 1)]
    for each in ids:
        log.returned(each, "x")
    log.lose([ids[1]])
    log.lose([ids[3]])
    resets = [MessageEvent("stream-reset", "{}", event_id(1, AFTER + n)) for n in range(2)]
    first, _, second, _, third = (MessageEvent("message", "x", each) for each in ids)

    told_once = Delivery(log, [*saw(), first, resets[0], second, third])

    assert told_once.missing == [ids[3]]
    told = Delivery(log, [*saw(), first, resets[0], second, resets[1], third])
    told.assert_exactly_once(resets=2)


def test_what_is_lost_later_may_have_been_shown_again_before():
    log = SentLog()
    kept, lost, _ = ids = [event_id(1), event_id(2), event_id(2, AFTER)]
    for each in ids:
        log.returned(each, "x")
    log.lose([lost])
    log.lose([kept])
    back = MessageEvent("stream-reset", "{}", event_id(0))
    gone = MessageEvent("stream-reset", "{}", event_id(1, AFTER))
    first, second, third = (MessageEvent("message", "x", each) for each in ids)

    before = [*saw(), first, second, back]
    Delivery(log, [*before, first, gone, third]).assert_exactly_once(resets=2)
    Delivery(log, [*before, gone, third]).assert_exactly_once(resets=2)
    assert Delivery(log, [*before, first, first, gone, third]).repeated == [kept]
    assert Delivery(log, [*before, second, gone, third]).repeated == [lost]
