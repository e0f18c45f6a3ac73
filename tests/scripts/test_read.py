"""read.lua: every branch, on a real server."""

from __future__ import annotations

import pytest
import redis

from streamy_redis.core.idempotency import tag_of
from streamy_redis.core.publication import Publication

from .conftest import Log, epoch_of


def positions(log: Log, count: int) -> list[str]:
    log.publish(*[str(n) for n in range(count)])
    return log.ids[-count:]


def test_a_log_that_isn_t_there(log: Log):
    before = log.clock()

    for start, argument in (("after", f"{before}-1"), ("newest", 5), ("all", "")):
        page = log.read(start, argument)
        assert before <= int(page.clock) <= log.clock()
        assert (page.ttl, page.length, page.generated) == (-2, 0, b"")
        assert (page.newest, page.ended, page.oldest) == ([], 0, [])
        assert (page.at_cursor, page.complete, page.runs) == ([], 1, [])


def test_the_summary_of_a_log(log: Log):
    log.publish("a", nonce="first")
    log.publish("b", nonce="last", ttl_ms=30_000)
    first, last = log.ids

    page = log.read("newest", 0, limit=0)

    assert 29_000 < page.ttl <= 30_000
    assert (page.length, page.generated.decode()) == (2, last)
    assert page.oldest == [first.encode(), tag_of("first").encode()]
    assert page.newest == [last.encode(), tag_of("last").encode()]
    assert (page.ended, page.runs) == (0, [])


def test_after_a_cursor_comes_what_follows_with_the_tag_before(log: Log):
    log.publish("a", nonce="one")
    log.publish("b", nonce="two")
    log.publish("c")
    ids = log.ids

    page = log.read("after", ids[0])

    assert page.at_cursor == [tag_of("one").encode(), b"event"]
    assert page.ids == ids[1:]
    assert page.runs == [[tag_of("one").encode(), *(e.frame for e in log.entries[1:])]]
    assert page.complete == 1


def test_after_the_newest_comes_nothing(log: Log):
    ids = positions(log, 3)

    page = log.read("after", ids[-1])

    assert (page.ids, page.complete, len(page.at_cursor)) == ([], 1, 2)


def test_after_a_trimmed_cursor_comes_the_oldest_and_no_entry_at_the_cursor(log: Log):
    ids = positions(log, 5)
    log.store.xtrim(log.key, maxlen=2, approximate=False)

    page = log.read("after", ids[0])

    assert (page.at_cursor, page.ids) == ([], ids[3:])
    assert page.oldest[0].decode() == ids[3]


def test_a_cursor_at_the_end_is_told(log: Log):
    log.publish("a")
    _, end = log.end(nonce="fin")

    page = log.read("after", end)

    assert page.at_cursor == [tag_of("fin").encode(), b"end"]
    assert (page.ended, page.runs) == (1, [])


def test_a_foreign_entry_at_the_cursor_has_no_tag(log: Log):
    ids = positions(log, 1)
    foreign = log.add_foreign(f"{epoch_of(ids[0])}-2")
    log.publish("b")

    page = log.read("after", foreign)

    assert page.at_cursor == [b"0", b""]
    assert len(page.frames) == 1


def test_foreign_entries_in_a_page_are_bare_ids(log: Log):
    ids = positions(log, 1)
    foreign = log.add_foreign(f"{epoch_of(ids[0])}-2")
    _, last = log.publish("b")

    page = log.read("after", ids[0])

    assert page.runs[0] == [foreign.encode()]
    assert page.shape == [[foreign], [last]]
    assert log.read("all").shape == [[ids[0]], [foreign], [last]]


def test_a_log_of_foreign_entries_only_holds_nothing_of_ours(log: Log):
    log.add_foreign()
    log.add_foreign()

    for start, argument in (("newest", 5), ("all", "")):
        page = log.read(start, argument)
        assert (page.newest, page.oldest, page.runs, page.complete) == ([], [], [], 1)
    assert page.length == 2


@pytest.mark.parametrize("wanted", [0, 1, 2, 5, 6])
def test_the_newest_n_events(log: Log, wanted: int):
    ids = positions(log, 5)

    page = log.read("newest", wanted)

    assert page.ids == (ids[-wanted:] if wanted else [])
    assert (page.at_cursor, page.complete) == ([], 1)


def test_the_newest_n_events_don_t_count_foreign_entries(log: Log):
    ids = positions(log, 3)
    epoch = epoch_of(ids[0])
    log.add_foreign(f"{epoch}-4")
    _, last = log.publish("x")
    log.add_foreign(f"{epoch}-6")

    page = log.read("newest", 2)

    assert page.shape == [[ids[2]], [f"{epoch}-4"], [last], [f"{epoch}-6"]]


def test_the_newest_n_events_reach_over_pages(log: Log):
    ids = positions(log, 350)

    assert log.read("newest", 250).ids == ids[-250:]


def test_a_summary_doesn_t_look_for_the_newest_n_events(log: Log):
    positions(log, 250)
    looks = log.calls("xrevrange")

    page = log.read("newest", 250, limit=0)

    assert (page.length, page.runs) == (250, [])
    assert log.calls("xrevrange") == looks


@pytest.mark.parametrize(("wanted", "events"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_a_newcomer_to_an_ended_stream_gets_the_end_too(log: Log, wanted: int, events: int):
    ids = positions(log, 3)
    _, end = log.end()

    page = log.read("newest", wanted)

    assert page.shape == [[*ids[3 - events :], end]]
    assert page.ended == 1


def test_an_end_is_known_behind_foreign_entries(log: Log):
    _, end = log.end()
    foreign = [log.add_foreign() for _ in range(150)]

    page = log.read("newest", 0)

    assert page.ended == 1
    assert page.shape == [[end], *([entry_id] for entry_id in foreign)]
    assert page.newest == [foreign[-1].encode(), b"0"]


def test_all_is_the_whole_log(log: Log):
    ids = positions(log, 250)

    page = log.read("all", limit=500)

    assert (page.shape, page.complete) == ([ids], 1)


@pytest.mark.parametrize("limit", [1, 2, 99, 100, 101, 249])
def test_a_page_holds_no_more_than_its_limit_and_the_next_goes_on(log: Log, limit: int):
    ids = positions(log, 250)

    page = log.read("all", limit=limit)
    assert (page.shape, page.complete) == ([ids[:limit]], 0)
    after = log.read("after", page.ids[-1], limit=limit)
    assert after.shape == [ids[limit : 2 * limit]]
    assert after.at_cursor[1] == b"event"


def test_a_page_that_ends_exactly_at_the_newest_is_complete(log: Log):
    ids = positions(log, 100)

    assert log.read("all", limit=100).complete == 1
    assert log.read("after", ids[0], limit=99).complete == 1
    assert log.read("after", ids[0], limit=98).complete == 0


def test_a_page_ends_at_its_bytes_but_holds_one_entry_at_least(log: Log):
    for _ in range(5):
        log.publish("x" * 1000)

    assert log.read("all", most_bytes=2500).shape == [log.ids[:3]]
    assert log.read("all", most_bytes=1).shape == [log.ids[:1]]
    assert log.read("all", most_bytes=1).complete == 0
    assert log.read("all", most_bytes=10_000).shape == [log.ids]


def test_a_hole_ends_a_run_and_the_next_tells_the_tag_in_it(log: Log):
    for n in range(1, 6):
        log.publish("x", nonce=f"n{n}")
    ids = log.ids
    log.store.xdel(log.key, ids[2])

    page = log.read("after", ids[0])

    assert page.shape == [ids[1:2], ids[3:]]
    assert [run[0] for run in page.runs] == [tag_of("n1").encode(), tag_of("n3").encode()]


def test_another_life_ends_a_run(log: Log):
    ids = positions(log, 2)
    other = [f"{epoch_of(ids[0]) + 1}-{seq}" for seq in (3, 4)]
    for entry_id in other:
        log.add_ours(entry_id)

    assert log.read("all").shape == [ids, other]


def test_an_end_ends_a_run(log: Log):
    first, end = positions(log, 1)[0], log.end()[1]
    after_it = f"{epoch_of(first)}-3"
    log.add_ours(after_it)

    assert log.read("all").shape == [[first, end], [after_it]]


MALFORMED = [
    *("", "\n", "x\n", "data: x", "data: x\n\n", "\ndata: x\n", "data: x\n\ndata: y\n"),
    *("data: x\n\nid: 1-1-00000000\ndata: y", "data: x\r\n", "data: x\rdata: y\n"),
]


@pytest.mark.parametrize("block", MALFORMED)
def test_an_entry_of_our_fields_with_a_malformed_frame_is_foreign(log: Log, block: str):
    ids = positions(log, 3)
    malformed = f"{epoch_of(ids[0])}-4"
    log.add_ours(malformed, block=block)
    ids += positions(log, 2)

    assert Publication.parse(dict(log.raw)[malformed][b"frame"]) is None
    assert log.read("after", ids[0]).shape == [ids[1:3], [malformed], ids[3:]]
    assert log.read("after", malformed).at_cursor == [b"0", b""]


@pytest.mark.parametrize("entry_id", ["0-1", "5-0", f"{10**16}-1", f"5-{10**16}"])
def test_an_entry_of_our_fields_at_an_id_that_is_no_position_is_foreign(log: Log, entry_id: str):
    log.add_ours(entry_id)

    assert Publication.parse(dict(log.raw)[entry_id][b"frame"]) is None
    assert log.read("all").runs == []
    assert log.read("after", "0-0").frames == []


FAR_AHEAD = ["9000000000000000-1", "99999999999999999-1", f"{2**64 - 1}-{2**64 - 1}"]


@pytest.mark.parametrize("place", FAR_AHEAD)
@pytest.mark.parametrize("is_deleted", [False, True])
def test_what_is_further_ahead_than_any_clock_is_left_out(log: Log, place: str, is_deleted: bool):
    ids = positions(log, 3)
    asked = [("after", ids[0]), ("after", ids[2]), ("newest", 2), ("all", "")]
    before = [log.read(*each) for each in asked]
    log.add_foreign(place)
    if is_deleted:
        log.store.xdel(log.key, place)

    for each, expected in zip(asked, before, strict=True):
        page = log.read(*each)
        assert (page.generated, page.newest) == (expected.generated, expected.newest)
        assert (page.at_cursor, page.runs) == (expected.at_cursor, expected.runs)
        assert (page.oldest, page.complete) == (expected.oldest, expected.complete)


@pytest.mark.parametrize("place", FAR_AHEAD)
def test_a_log_of_nothing_else_is_none(log: Log, place: str):
    log.add_foreign(place)

    for start, argument in (("after", place), ("newest", 5), ("all", "")):
        page = log.read(start, argument)
        assert (page.length, page.generated, page.newest, page.oldest) == (0, b"", [], [])
        assert (page.at_cursor, page.complete, page.runs) == ([], 1, [])


def test_what_only_looks_given_up_far_ahead_begins_no_life(log: Log):
    ids = positions(log, 2)
    log.add_foreign("99999999999999999-0")
    log.store.xdel(log.key, "99999999999999999-0")

    # Nor is anything written while it stands there.
    witness = f"{epoch_of(ids[0])}-9-0123abcd"
    assert log.read("all", witness=witness).generated.decode() == ids[-1]
    log.publish("c")
    assert log.read("all").generated.decode() == f"{epoch_of(ids[0])}-3"


def test_a_trimmed_log_remembers_the_last_id(log: Log):
    ids = positions(log, 2)
    log.store.xtrim(log.key, maxlen=0, approximate=False)

    page = log.read("after", ids[1])

    assert page.generated.decode() == ids[1]
    assert (page.length, page.newest, page.at_cursor, page.runs) == (0, [], [], [])


def test_another_type_at_the_key_is_an_error(log: Log):
    log.store.set(log.key, "x")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        log.read("all")


def test_a_summary_tells_how_large_the_entries_behind_a_cursor_are(log: Log):
    first, *_ = positions(log, 10)
    log.publish(*["x" * 1000] * 90)

    assert 800 < log.read("after", first, limit=0).size < 1100
    assert 800 < log.read("all", limit=0).size < 1100
    assert log.read("after", log.ids[-1], limit=0).size == 0
    assert log.read("after", first).size == 0


@pytest.mark.parametrize("rhythm", [5, 10])
def test_large_entries_are_noticed_that_come_in_a_rhythm(log: Log, rhythm: int):
    log.publish(*["x" * (10_000 if n % rhythm == 2 else 10) for n in range(100)])

    assert log.read("all", limit=0).size > 500


def test_reading_writes_nothing(log: Log, prefix: str):
    log.read("all")
    log.read("newest", 3)

    assert list(log.store.scan_iter(f"{prefix}*")) == []
