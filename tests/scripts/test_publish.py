"""publish.lua: every branch, on a real server."""

from __future__ import annotations

import re

import pytest
import redis

from streamy_redis.core.idempotency import tag_of
from tests.stamps import keys

from .conftest import Log, epoch_of, seq_of

FAR_FUTURE = 9_000_000_000_000_000  # year 2255
HOUR = 3_600_000_000
# What a key that a caller chose is looked up in, and what the first try of another one asks for.
INDEX = "index"
NOWHERE = ""
# Behind that a sender who knows nothing of the log looks.
START = "0-0"


def data_of(frame: bytes) -> bytes:
    return frame.split(b"\n")[0].removeprefix(b"data: ")


def test_a_first_event_begins_a_life_at_the_server_s_clock(log: Log):
    before = log.clock()
    status, position = log.publish("a", nonce="n")
    after = log.clock()

    assert status == "published"
    assert before <= epoch_of(position) <= after
    assert seq_of(position) == 1
    (entry,) = log.entries
    assert entry.id == position
    assert entry.frame == f"data: a\nid: {position}-{tag_of('n')}\n\n".encode()
    assert (entry.nonce, entry.kind, entry.previous) == ("n", "event", "0")
    assert log.published(1) == [entry.frame]
    assert 59_000 < log.store.pttl(log.key) <= 60_000


def test_later_events_continue_it_and_remember_the_tag_before(log: Log):
    _, first = log.publish("a", nonce="one")
    _, second = log.publish("b", nonce="two")
    _, third = log.publish("c")

    assert log.ids == [first, second, third]
    assert [seq_of(p) for p in log.ids] == [1, 2, 3]
    assert len({epoch_of(p) for p in log.ids}) == 1
    assert [e.previous for e in log.entries] == ["0", tag_of("one"), tag_of("two")]


def test_every_event_prolongs_the_life_of_the_log(log: Log):
    log.publish("a", ttl_ms=50_000)
    log.publish("b", ttl_ms=90_000)
    assert 80_000 < log.store.pttl(log.key) <= 90_000


def test_a_batch_is_contiguous_and_published_in_order(log: Log):
    log.publish("before")
    status, last = log.publish("a", "b", "c", nonce="z")

    assert (status, seq_of(last)) == ("published", 4)
    assert [data_of(e.frame) for e in log.entries] == [
        b"before",
        b"a",
        b"b",
        b"c",
    ]
    assert [e.previous for e in log.entries[1:]] == [tag_of(e.nonce) for e in log.entries[:-1]]
    assert log.published(4) == [e.frame for e in log.entries]


def test_a_batch_larger_than_the_history_is_published_whole(log: Log):
    log.publish(*[str(n) for n in range(10)], history_length=3)

    assert [seq_of(p) for p in log.ids] == [8, 9, 10]
    assert [data_of(m) for m in log.published(10)] == [str(n).encode() for n in range(10)]


def test_a_batch_of_thousands_is_one_call(log: Log):
    _, last = log.publish(*[str(n) for n in range(5000)], history_length=10_000)

    assert seq_of(last) == 5000
    assert log.store.xlen(log.key) == 5000


def test_history_length_is_exact(log: Log):
    for n in range(300):
        log.publish(str(n), history_length=100)

    assert len(log.ids) == 100
    assert seq_of(log.ids[0]) == 201


def test_a_log_trimmed_empty_gets_a_newer_life(log: Log):
    _, first = log.publish("a")
    log.store.xtrim(log.key, maxlen=0, approximate=False)

    status, position = log.publish("b")

    assert status == "published"
    assert epoch_of(position) > epoch_of(first)
    assert seq_of(position) == 1
    assert log.entries[0].previous == "0"


def test_a_log_whose_newest_entry_was_deleted_gets_a_newer_life(log: Log):
    log.publish("a")
    _, second = log.publish("b")
    log.store.xdel(log.key, second)

    _, position = log.publish("c")

    assert epoch_of(position) > epoch_of(second)
    assert seq_of(position) == 1
    assert log.entries[-1].previous == "0"


def test_an_older_entry_that_was_deleted_changes_nothing(log: Log):
    _, first = log.publish("a")
    log.publish("b")
    log.store.xdel(log.key, first)

    _, position = log.publish("c")

    assert (epoch_of(position), seq_of(position)) == (epoch_of(first), 3)


def test_a_clock_stepped_back_continues_the_life(log: Log):
    log.add_ours(f"{FAR_FUTURE}-1")

    _, position = log.publish("b")

    assert position == f"{FAR_FUTURE}-2"


def test_a_clock_stepped_back_after_a_trim_begins_just_after_the_last_life(log: Log):
    ahead = log.clock() + HOUR
    log.add_ours(f"{ahead}-7")
    log.store.xtrim(log.key, maxlen=0, approximate=False)

    status, position = log.publish("b")

    # XADD refuses anything that isn't newer than the last id it generated.
    assert (status, position) == ("published", f"{ahead + 1}-1")
    assert log.publish("c") == ("published", f"{ahead + 1}-2")


def test_a_deleted_key_is_a_new_life_and_16_digits_are_not_rounded(log: Log):
    epochs = []
    for _ in range(50):
        _, position = log.publish("a")
        epochs.append(epoch_of(position))
        log.store.delete(log.key)

    assert len(set(epochs)) == 50
    assert epochs == sorted(epochs)
    assert {len(str(e)) for e in epochs} == {16}
    assert any(e % 10 for e in epochs)


def test_a_foreign_entry_at_the_end_keeps_its_place(log: Log):
    _, first = log.publish("a", nonce="one")
    foreign = log.add_foreign(f"{epoch_of(first)}-2")

    _, position = log.publish("b")

    assert log.ids == [first, foreign, position]
    assert position == f"{epoch_of(first)}-3"
    # Its predecessor isn't ours, so there is no tag to remember.
    assert log.raw[-1][1][b"previous"] == b"0"


def test_a_log_that_begins_with_a_foreign_entry_gets_a_life_of_ours(log: Log):
    before = log.clock()
    log.add_foreign()

    status, position = log.publish("a")

    assert status == "published"
    assert epoch_of(position) >= before
    assert seq_of(position) == 1


def test_a_foreign_entry_not_far_ahead_is_continued(log: Log):
    log.publish("a")
    ahead = log.clock() + HOUR
    log.add_foreign(f"{ahead}-5")

    status, position = log.publish("b")

    assert (status, position) == ("published", f"{ahead}-6")


# -- places that no clock can have come to --------------------------------------------------------

FAR_AHEAD = [f"{FAR_FUTURE}-1", "99999999999999999-1", f"{2**64 - 1}-{2**64 - 1}", "9" * 16 + "-0"]


@pytest.mark.parametrize("place", FAR_AHEAD)
def test_a_foreign_entry_far_ahead_is_taken_away_and_the_life_goes_on(log: Log, place: str):
    _, first = log.publish("a", nonce="one", search=INDEX, ttl_ms=50_000)
    _, second = log.publish("b", nonce="two")
    before = log.raw
    log.add_foreign(place)

    status, third = log.publish("c")

    assert (status, third) == ("published", f"{epoch_of(first)}-3")
    assert log.ids == [first, second, third]
    assert log.raw[:2] == before
    assert log.entries[-1].previous == tag_of("two")
    assert log.published(3)[-1] == log.entries[-1].frame
    assert log.publish("a", nonce="one", search=INDEX) == ("repeated", first)


@pytest.mark.parametrize("place", ["{epoch}-18446744073709551615", "{epoch}-10000000000000000"])
def test_a_foreign_seq_that_cannot_be_counted_on_from_is_taken_away(log: Log, place: str):
    _, first = log.publish("a")
    log.add_foreign(place.format(epoch=epoch_of(first)))

    assert log.publish("b") == ("published", f"{epoch_of(first)}-2")


@pytest.mark.parametrize("place", FAR_AHEAD)
@pytest.mark.parametrize("is_deleted", [False, True])
def test_where_there_is_nothing_else_a_life_begins_at_the_clock(
    log: Log, place: str, is_deleted: bool
):
    before = log.clock()
    log.add_foreign(place)
    if is_deleted:
        log.store.xdel(log.key, place)

    status, position = log.publish("a")

    assert status == "published"
    assert before <= epoch_of(position) <= log.clock()
    assert log.ids == [position]
    assert log.store.pttl(log.key) > 0


def test_a_stream_has_ended_and_a_repeat_is_one_whatever_stands_behind_it(log: Log):
    _, first = log.publish("a", nonce="mine", search=INDEX)
    _, end = log.end()
    log.add_foreign(FAR_AHEAD[1])

    assert log.publish("b") == ("ended", end)
    assert log.publish("a", nonce="mine", search=INDEX) == ("repeated", first)


# -- repeats --------------------------------------------------------------------------------------

each_search = pytest.mark.parametrize("search", [INDEX, START])


def first_try(search: str) -> str:
    """What it says where later ones search so."""
    return INDEX if search == INDEX else NOWHERE


@each_search
def test_a_repeat_is_found_and_stores_and_publishes_nothing(log: Log, search: str):
    _, first = log.publish("a", nonce="mine", search=first_try(search))
    log.publish("b")

    assert log.publish("a", nonce="mine", search=search) == ("repeated", first)

    assert len(log.ids) == 2
    assert len(log.published(2)) == 2


def test_a_repeat_is_looked_for_only_when_told_so(log: Log):
    log.publish("a", nonce="mine")

    assert log.publish("a", nonce="mine")[0] == "published"
    assert len(log.ids) == 2


@pytest.mark.parametrize("back", [0, 1, 98, 99, 100, 101, 250, 399])
def test_a_repeat_is_found_in_every_page(log: Log, back: int):
    log.publish(*[str(n) for n in range(400 - back - 1)], "mine", nonce="mine")
    position = log.ids[-1]
    if back:
        log.publish(*[str(n) for n in range(back)])

    status = log.publish("mine", nonce="mine", search=START, history_length=400)

    assert status == ("repeated", position)
    assert len(log.ids) == 400


def test_a_repeat_is_looked_for_behind_what_its_sender_knew(log: Log):
    _, known = log.publish("a")
    _, position = log.publish("mine", nonce="mine")
    log.publish("b")

    assert log.publish("mine", nonce="mine", search=known) == ("repeated", position)
    assert log.publish("mine", nonce="mine", search=position)[0] == "published"


def test_a_repeat_older_than_the_history_is_not_looked_for(log: Log):
    log.publish("mine", nonce="mine")
    log.publish("a", "b", "c")

    status, _ = log.publish("mine", nonce="mine", search=START, history_length=3)

    assert status == "published"


@each_search
def test_a_repeated_batch_is_known_by_its_last_nonce(log: Log, search: str):
    nonce = "last of the batch"
    _, last = log.publish("a", "b", "c", nonce=nonce, search=first_try(search))

    again = log.publish("a", "b", "c", nonce=nonce, search=search)

    assert again == ("repeated", last)
    assert len(log.ids) == 3


@each_search
def test_the_search_goes_past_foreign_entries(log: Log, search: str):
    _, position = log.publish("a", nonce="mine", search=first_try(search))
    for _ in range(3):
        log.add_foreign()

    assert log.publish("a", nonce="mine", search=search) == ("repeated", position)


@each_search
def test_a_repeat_in_an_empty_log_is_published(log: Log, search: str):
    assert log.publish("a", nonce="mine", search=search)[0] == "published"


def test_a_repeat_is_found_across_lives_as_long_as_it_is_kept(log: Log):
    _, first = log.publish("a", nonce="mine", search=INDEX)
    _, second = log.publish("b")
    log.store.xdel(log.key, second)
    log.publish("in a new life")

    assert log.publish("a", nonce="mine", search=INDEX) == ("repeated", first)


def test_a_key_is_free_again_when_its_event_was_trimmed_or_deleted(log: Log):
    for lose in (
        lambda: log.publish("x", "y", history_length=2),
        lambda: log.store.xdel(log.key, log.index["mine"]),
        lambda: log.store.xtrim(log.key, maxlen=0, approximate=False),
    ):
        _, position = log.publish("a", nonce="mine", search=INDEX)
        lose()

        status, newer = log.publish("a", nonce="mine", search=INDEX)

        assert (status, newer > position) == ("published", True)
        assert log.publish("a", nonce="mine", search=INDEX) == ("repeated", newer)


def test_the_index_is_part_of_the_log_and_goes_with_it(log: Log):
    log.publish("a", nonce="mine", search=INDEX)
    image = log.store.dump(log.key)
    assert log.store.keys(f"{log.channel}*") == [log.key.encode()]

    log.store.unlink(log.key)
    status, _ = log.publish("a", nonce="mine", search=INDEX)
    assert status == "published"

    # As on a replica, or a node that a slot has moved to.
    log.store.restore(log.key, 60_000, image, replace=True)
    assert log.publish("a", nonce="mine", search=INDEX) == ("repeated", log.ids[0])


def test_the_index_never_holds_more_than_one_beyond_the_history(log: Log):
    keyed = 0
    for turn in range(60):
        # With a key, and many without: these trim what the index has, and don't touch it.
        for _ in range(turn % 7):
            keyed += 1
            log.publish("k", nonce=f"key {keyed}", search=INDEX, history_length=20)
        log.publish(*"unkeyed", history_length=20)
        assert len(log.index) <= 20 + 1

    for n in range(20):
        log.publish("k", nonce=f"last {n}", search=INDEX, history_length=20)
    assert sorted(log.index.values()) == sorted(log.ids)


def test_a_group_of_somebody_else_is_left_alone(log: Log):
    log.publish("a")
    log.store.xgroup_create(log.key, "theirs", "0")

    _, position = log.publish("b", nonce="mine", search=INDEX)

    assert log.publish("b", nonce="mine", search=INDEX) == ("repeated", position)
    assert [group["name"] for group in log.store.xinfo_groups(log.key)] == [
        b"idempotency keys",
        b"theirs",
    ]


def test_a_send_with_a_key_costs_at_most_twice_one_without(log: Log):
    log.publish(*["x" * 1000] * 1000)
    rounds = [[f"key {n}-{i}" for i in range(50)] for n in range(30)]

    # Each the best of its rounds, which are over before the machine does something else.
    unkeyed = min(log.cost(nonces, search=NOWHERE) for nonces in rounds)
    keyed = min(log.cost(nonces, search=INDEX) for nonces in rounds)
    repeated = min(log.cost(nonces, search=INDEX) for nonces in rounds[-10:])

    assert len(log.index) > len(log.ids) - 50
    assert keyed <= 2 * unkeyed
    assert repeated <= 2 * unkeyed


def test_a_retry_costs_nothing_for_what_its_sender_knew(log: Log):
    log.publish(*["x" * 1000] * 1000)
    known = log.ids[-1]
    log.publish("b")

    looks = log.calls("xrevrange")
    log.publish("c", nonce="mine", search=known)

    assert log.calls("xrevrange") == looks + 1


# -- the end --------------------------------------------------------------------------------------


def test_the_end_is_an_entry_and_a_message_and_lives_its_own_ttl(log: Log):
    log.publish("a")
    status, position = log.end("bye", nonce="fin", ttl_ms=5000)

    assert (status, seq_of(position)) == ("published", 2)
    entry = log.entries[-1]
    assert (entry.kind, entry.nonce) == ("end", "fin")
    expected = f"event: stream-end\ndata: bye\nid: {position}-{tag_of('fin')}\n\n"
    assert entry.frame == expected.encode()
    assert log.published(2)[1] == entry.frame
    assert 4000 < log.store.pttl(log.key) <= 5000


def test_events_are_refused_after_the_end_and_its_ttl_stays(log: Log):
    _, end = log.end(ttl_ms=5000)

    assert log.publish("late", ttl_ms=99_000) == ("ended", end)
    assert log.publish("a", "batch", search=INDEX) == ("ended", end)

    assert log.ids == [end]
    assert log.store.pttl(log.key) <= 5000
    assert len(log.published(1)) == 1


def test_a_second_end_is_refused_but_the_same_one_is_a_repeat(log: Log):
    _, end = log.end(nonce="fin")

    assert log.end(nonce="other") == ("ended", end)
    assert log.end(nonce="fin", search=START) == ("repeated", end)
    assert log.end(nonce="fin") == ("repeated", end)
    assert log.ids == [end]


@each_search
def test_a_repeat_from_before_the_end_is_still_found(log: Log, search: str):
    _, position = log.publish("a", nonce="mine", search=first_try(search))
    log.end()

    assert log.publish("a", nonce="mine", search=search) == ("repeated", position)


def test_the_end_doesn_t_push_an_event_out_of_the_history(log: Log):
    log.publish("a", "b", "c", history_length=3)
    log.end(history_length=3)

    assert [e.kind for e in log.entries] == ["event", "event", "event", "end"]


def test_a_foreign_entry_behind_the_end_doesn_t_reopen_the_stream(log: Log):
    _, end = log.end()
    log.add_foreign()

    assert log.publish("late") == ("ended", end)


def test_a_trimmed_end_is_forgotten(log: Log):
    _, end = log.end()
    log.store.xtrim(log.key, maxlen=0, approximate=False)

    status, position = log.publish("new")

    assert status == "published"
    assert epoch_of(position) > epoch_of(end)


# -- without history ------------------------------------------------------------------------------


def test_without_history_events_are_published_under_a_comment(log: Log):
    assert log.publish("a", "b", history_length=0) == ("published", "")

    assert log.published(2) == [b"data: a\n:\n\n", b"data: b\n:\n\n"]
    assert not log.store.exists(log.key)


def test_without_history_the_end_is_stored_and_refuses_events(log: Log):
    status, end = log.end("bye", history_length=0)

    assert (status, seq_of(end)) == ("published", 1)
    assert log.publish("late", history_length=0) == ("ended", end)
    assert log.ids == [end]


# -- what it must not do --------------------------------------------------------------------------


def test_another_type_at_the_key_is_an_error_and_publishes_nothing(log: Log):
    log.store.set(log.key, "x")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        log.publish("a")

    assert log.published(0) == []


def test_only_the_passed_keys_are_touched(log: Log, prefix: str):
    log.publish("a")
    log.end()

    assert [key.decode() for key in log.store.scan_iter(f"{prefix}*")] == [log.key]


# -- when a message was sent ----------------------------------------------------------------------


@pytest.mark.parametrize("history_length", [10, 0])
def test_one_message_in_sixteen_says_when_it_was_sent(log: Log, history_length: int):
    for stamped in [True, False] * 3:
        nonce = next(keys(are_stamped=stamped))
        before = log.clock()
        log.publish("a", nonce=nonce, history_length=history_length)
        after = log.clock()

        [message] = log.messages(1)
        frame, _, stamp = message.rpartition(b"\n\n")
        assert frame.startswith(b"data: a\n")
        assert bool(stamp) is stamped
        if stamped:
            assert re.fullmatch(rb":[0-9]{16}\n", stamp)
            assert before <= int(stamp[1:]) <= after


def test_what_is_stored_does_not_say_it(log: Log):
    log.publish("a", nonce=next(keys(are_stamped=True)))

    [message] = log.messages(1)
    frame = log.entries[0].frame
    assert frame.startswith(b"data: a\nid: ")
    assert message.startswith(frame + b":")


def test_each_of_a_batch_says_it_for_itself(log: Log):
    log.publish(*[str(n) for n in range(50)])

    stamped = [not message.endswith(b"\n\n") for message in log.messages(50)]
    assert stamped == [tag_of(entry.nonce).endswith("0") for entry in log.entries]
    assert True in stamped
