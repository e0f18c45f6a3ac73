"""What is sent arrives, in order, under ids of the documented form."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import re
import threading
import time
import uuid
from typing import Any

import pytest

from streamy_redis import Event, InvalidEvent, ReceivedEvent
from tests.deadline import Deadline
from tests.stamps import keys

from .conftest import EventId, Shell

EVENT_ID = re.compile(r"[1-9][0-9]{15}-[1-9][0-9]*-[0-9a-f]{8}")


def test_a_subscriber_receives_what_is_sent_in_order(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    ids = [streams.send_event("room", f"event {n}") for n in range(20)]

    received = reader.wait_for(20)
    assert received == [
        ReceivedEvent("room", ids[n], "message", f"event {n}", "event") for n in range(20)
    ]


def test_a_name_goes_with_its_event_and_not_with_the_next(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    streams.send_event("room", "a", "joined", retry=250)
    streams.send_event("room", "b")
    streams.send_event("room", "c", event_name="left")

    received = reader.wait_for(3)
    assert [(e.name, e.data) for e in received] == [
        ("joined", "a"),
        ("message", "b"),
        ("left", "c"),
    ]


def test_every_subscriber_of_every_manager_receives_an_event(shell: Shell, streams: Any):
    elsewhere = shell.manager()
    readers = [shell.reader(m, "room") for m in (streams, streams, elsewhere)]

    streams.send_event("room", "from here")
    elsewhere.send_event("room", "from there")

    for reader in readers:
        reader.wait_for(2)
        assert reader.data == ["from here", "from there"]
        assert reader.ids == readers[0].ids


def test_ids_are_epoch_seq_and_tag_without_holes(streams: Any):
    before = time.time()
    ids = [streams.send_event("room", "x") for _ in range(5)]

    assert all(EVENT_ID.fullmatch(event_id) for event_id in ids)
    parsed = [EventId.parse(event_id) for event_id in ids]
    assert [p.seq for p in parsed] == [1, 2, 3, 4, 5]
    assert len({p.epoch for p in parsed}) == 1
    assert len({p.tag for p in parsed}) == 5
    assert abs(parsed[0].epoch / 1e6 - before) < 10, "the epoch is the clock in microseconds"


def test_the_entry_id_in_the_log_is_the_position(shell: Shell, streams: Any, store: Any):
    event_id = streams.send_event("room", "x")

    (entry_id, _fields), *rest = store.xrange(shell.log("room"))
    assert not rest
    assert event_id.startswith(entry_id.decode() + "-")


def test_the_frame_is_published_as_it_is_stored(shell: Shell, streams: Any, store: Any):
    with store.pubsub() as pubsub:
        pubsub.subscribe(shell.channel("room"))
        pubsub.get_message(timeout=5)
        key = next(keys(are_stamped=False))
        event_id = streams.send_event("room", "a\nb", "joined", retry=7, idempotency_key=key)
        published = pubsub.get_message(timeout=5)["data"]

    ((_id, fields),) = store.xrange(shell.log("room"))
    expected = f"event: joined\nretry: 7\ndata: a\ndata: b\nid: {event_id}\n\n".encode()
    assert published == expected
    assert expected in fields.values() or expected.partition(b"\n")[2] in fields.values()


def test_sending_writes_one_key_only_and_connecting_none(shell: Shell, streams: Any, store: Any):
    shell.reader(streams, "quiet")
    streams.send_event("room", "x")

    keys = [key.decode() for key in store.scan_iter(f"{shell.prefix}*")]
    assert keys == [shell.log("room")]
    assert 0 < store.pttl(shell.log("room")) <= 3_600_000


def test_each_stream_counts_for_itself(streams: Any):
    ids = [streams.send_event(room, "x") for room in ("a", "b", "a")]

    assert [EventId.parse(event_id).seq for event_id in ids] == [1, 1, 2]


def test_send_events_returns_contiguous_ids_in_order(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    first = streams.send_event("room", "before")

    ids = streams.send_events(
        "room", ["plain", b"bytes", {"a": 1}, Event("named", "joined", 99), Event(data=None)]
    )

    assert [EventId.parse(i).seq for i in [first, *ids]] == [1, 2, 3, 4, 5, 6]
    received = reader.wait_for(6)[1:]
    assert [(e.name, e.data) for e in received] == [
        ("message", "plain"),
        ("message", "bytes"),
        ("message", '{"a":1}'),
        ("joined", "named"),
        ("message", "null"),
    ]
    assert reader.ids == [first, *ids]


def test_send_events_of_a_generator_and_of_nothing(streams: Any):
    assert len(streams.send_events("room", (str(n) for n in range(3)))) == 3
    assert streams.send_events("room", []) == []
    assert streams.info("room").length == 3


def test_send_events_is_all_or_nothing(streams: Any):
    with pytest.raises(InvalidEvent, match="data"):
        streams.send_events("room", ["fine", float("nan"), "fine"])

    assert not streams.info("room").exists


def test_batches_of_several_senders_never_mix(shell: Shell, streams: Any):
    elsewhere = shell.manager()
    reader = shell.reader(streams, "room")

    def send(manager: Any, name: str) -> None:
        for batch in range(5):
            manager.send_events("room", [f"{name} {batch} {n}" for n in range(10)])

    threads = [
        threading.Thread(target=send, args=(m, n)) for m, n in ((streams, "a"), (elsewhere, "b"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    received = [e.data for e in reader.wait_for(100)]
    for start in range(0, 100, 10):
        name, batch, _ = received[start].split()
        assert received[start : start + 10] == [f"{name} {batch} {n}" for n in range(10)]


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        ("", ""),
        ("plain", "plain"),
        (" leading space", " leading space"),
        ("two\nlines", "two\nlines"),
        ("\n\n\n", "\n\n\n"),
        ("ends with a newline\n", "ends with a newline\n"),
        ("cr\rlf\ncrlf\r\nend", "cr\nlf\ncrlf\nend"),
        ("data: x\n\nid: 7\n\n", "data: x\n\nid: 7\n\n"),
        (":comment", ":comment"),
        ("\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e", "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"),
        ("\ufeffbom", "\ufeffbom"),
        ("nul \0 and 😀 and é", "nul \0 and 😀 and é"),
        ("é".encode(), "é"),
        (b"\xef\xbb\xbfbytes", "\ufeffbytes"),
        (b"", ""),
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (1.5, "1.5"),
        ({"b": [1, "é", None], "a": {}}, '{"b":[1,"é",null],"a":{}}'),
        (["x\ny"], '["x\\ny"]'),
        ((), "[]"),
    ],
    ids=repr,
)
def test_data_arrives_as_a_browser_sees_it(shell: Shell, streams: Any, data: Any, seen: str):
    live = shell.reader(streams, "room")

    streams.send_event("room", data)

    assert live.wait_for(1)[0].data == seen
    assert shell.reader(streams, "room", replay="all").wait_for(1)[0].data == seen


def circular() -> list[Any]:
    data: list[Any] = []
    data.append(data)
    return data


@pytest.mark.parametrize(
    "data",
    [
        float("nan"),
        float("inf"),
        {"deep": [float("-inf")]},
        "lone \ud800 surrogate",
        {"key": "\udfff"},
        {"\ud800": 1},
        b"\xff",
        b"cut \xc3",
        b"\xed\xa0\x80",
        circular(),
        object(),
        {(1, 2): 3},
        {"at": datetime.date(2026, 11, 20), "x": float("nan")},
        1j,
    ],
    ids=lambda data: repr(data)[:20].encode("ascii", "replace").decode(),
)
@pytest.mark.refusal
def test_refuses_data_that_json_or_utf8_cannot_carry(streams: Any, data: Any):
    with pytest.raises(InvalidEvent, match="data") as caught:
        streams.send_event("room", data)

    assert isinstance(caught.value, ValueError)
    assert not streams.info("room").exists


def test_what_web_frameworks_take_is_taken_without_a_setting(streams: Any, shell: Shell):
    reader = shell.reader(streams, "room")
    day = datetime.date(2026, 11, 20)

    streams.send_event("room", {"at": day, "tags": {"a"}, "id": uuid.UUID(int=1)})
    streams.send_events("room", [Point(1, day)])
    streams.end_stream("room", {day})

    reader.wait_for(3)
    assert reader.data == [
        f'{{"at":"2026-11-20","tags":["a"],"id":"{uuid.UUID(int=1)}"}}',
        '{"x":1,"at":"2026-11-20"}',
        '["2026-11-20"]',
    ]


@dataclasses.dataclass
class Point:
    x: int
    at: datetime.date


def test_json_encoder_carries_what_json_cannot(shell: Shell):
    streams = shell.manager(json_encoder=lambda data: f'"{data.isoformat()}"'.encode())
    reader = shell.reader(streams, "room")

    streams.send_event("room", datetime.date(2026, 11, 20))
    streams.send_event("room", "str is sent as it is")

    reader.wait_for(2)
    assert reader.data == ['"2026-11-20"', "str is sent as it is"]


def test_max_event_size_counts_utf8_bytes_inclusive(shell: Shell):
    streams = shell.manager(max_event_size=10)

    streams.send_event("room", "é" * 5)
    streams.send_event("room", b"0123456789")
    streams.send_event("room", "12345678"[:8])
    for data in ("é" * 5 + "x", b"01234567890", ["123456789"]):
        with pytest.raises(InvalidEvent, match="data"):
            streams.send_event("room", data)
    with pytest.raises(InvalidEvent, match="data"):
        streams.end_stream("room", "x" * 11)

    assert streams.info("room").length == 3
    assert streams.end_stream("room", "x" * 10) is True


def test_max_event_size_counts_what_each_further_line_takes(shell: Shell):
    streams = shell.manager(max_event_size=10)

    streams.send_event("room", "12\r\n4")
    streams.send_event("room", "\n123")
    for data in ("12\r\n45", "123\r45", "\n\n"):
        with pytest.raises(InvalidEvent, match="each line after the first takes 6 more"):
            streams.send_event("room", data)


def test_the_largest_event_goes_through(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    data = "x" * (1024 * 1024)

    streams.send_event("room", data, "n" * 512, retry=2**31 - 1)

    assert reader.wait_for(1, timeout=20)[0].data == data


@pytest.mark.parametrize(
    "name",
    ["a\nb", "a\rb", "a\0b", "stream-", "stream-open", "\ud800", 7, b"name", "é" * 256 + "x"],
    ids=repr,
)
@pytest.mark.refusal
def test_refuses_event_names_that_no_event_line_can_carry(streams: Any, name: Any):
    with pytest.raises(InvalidEvent, match="event_name"):
        streams.send_event("room", "x", name)
    with pytest.raises(InvalidEvent, match="event_name"):
        streams.send_events("room", ["y", Event("x", event_name=name)])

    assert not streams.info("room").exists


@pytest.mark.refusal
def test_refuses_a_batch_that_would_hold_up_everybody_else(streams: Any):
    with pytest.raises(InvalidEvent, match=r"events must be at most 10000: send them in parts"):
        streams.send_events("room", itertools.repeat("x"))
    with pytest.raises(InvalidEvent, match=r"events must be at most 4194304 bytes together: send"):
        streams.send_events("room", ["x" * 1024 * 1024] * 4)

    assert not streams.info("room").exists


def test_takes_a_batch_at_both_bounds(shell: Shell):
    streams = shell.manager(max_event_size=5 * 1024 * 1024, send_timeout=20)

    assert len(streams.send_events("room", ["x"] * 10_000)) == 10_000
    assert len(streams.send_events("room", ["x" * 5 * 1024 * 1024])) == 1


@pytest.mark.parametrize("name", ["é 😀", "a: b", " leading", "Stream-x", "streams", "open"])
def test_takes_any_other_event_name(shell: Shell, streams: Any, name: str):
    reader = shell.reader(streams, "room")

    streams.send_event("room", "x", name)

    assert reader.wait_for(1)[0].name == name


@pytest.mark.parametrize("retry", [True, -1, 2**31, 1.0, "1"], ids=repr)
@pytest.mark.refusal
def test_refuses_retry_that_is_no_number_of_milliseconds(streams: Any, retry: Any):
    with pytest.raises(InvalidEvent, match="retry"):
        streams.send_event("room", "x", retry=retry)
    with pytest.raises(InvalidEvent, match="retry"):
        streams.send_events("room", [Event("x", retry=retry)])


@pytest.mark.parametrize("retry", [0, 2**31 - 1])
def test_takes_retry_at_both_bounds(streams: Any, retry: int):
    assert streams.send_event("room", "x", retry=retry)


def test_history_is_bounded_by_history_length(shell: Shell):
    streams = shell.manager(history_length=3)
    ids = [streams.send_event("room", str(n)) for n in range(5)]

    info = streams.info("room")

    assert info.length == 3
    assert (info.first_event_id, info.last_event_id) == (ids[2], ids[4])


def test_a_batch_longer_than_the_history_is_delivered_whole_and_kept_in_part(shell: Shell):
    streams = shell.manager(history_length=3)
    reader = shell.reader(streams, "room")
    # The first event of a life is read from the log, which can't show more than it keeps.
    first = streams.send_event("room", "first")
    reader.wait_for(1)

    ids = streams.send_events("room", [str(n) for n in range(8)])

    reader.wait_for(9)
    assert (reader.ids, reader.data[1:]) == ([first, *ids], [str(n) for n in range(8)])
    assert streams.info("room").first_event_id == ids[5]


def test_a_first_batch_longer_than_the_history_is_whole_or_says_that_it_is_not(shell: Shell):
    streams = shell.manager(history_length=3)
    reader = shell.reader(streams, "room")

    ids = streams.send_events("room", [str(n) for n in range(8)])

    Deadline(5).until(lambda: ids[-1] in reader.ids, lambda: reader.received)
    if reader.kinds[0] == "reset":
        assert reader.ids[1:] == ids[5:]
    else:
        assert reader.ids == ids


def test_the_history_is_forgotten_history_ttl_after_the_last_event(shell: Shell):
    streams = shell.manager(history_ttl=0.2)
    first = streams.send_event("room", "x")
    assert streams.info("room").ttl <= 0.2

    Deadline(5).until(lambda: not streams.info("room").exists)

    second = streams.send_event("room", "y")
    assert EventId.parse(second).seq == 1
    assert EventId.parse(second).epoch > EventId.parse(first).epoch


def test_info_of_a_stream(shell: Shell, streams: Any):
    unknown = streams.info("room")
    assert (unknown.stream_id, unknown.exists, unknown.ended, unknown.length) == (
        "room",
        False,
        False,
        0,
    )
    assert (unknown.first_event_id, unknown.last_event_id, unknown.ttl) == (None, None, None)

    ids = streams.send_events("room", ["a", "b", "c"])

    known = streams.info("room")
    assert (known.exists, known.ended, known.length) == (True, False, 3)
    assert (known.first_event_id, known.last_event_id) == (ids[0], ids[2])
    assert 3590 < known.ttl <= 3600


@pytest.mark.parametrize("method", ["send_event", "send_events", "end_stream"])
def test_refusals_come_before_redis_is_asked(shell: Shell, method: str):
    nowhere = shell.manager("redis://127.0.0.1:1/0")
    bad = {"send_event": float("nan"), "send_events": [float("nan")], "end_stream": b"\xff"}

    with pytest.raises(InvalidEvent, match="data"):
        getattr(nowhere, method)("room", bad[method])


def test_a_send_from_within_a_handled_time_limit_is_like_any_other(shell: Shell, store: Any):
    """As a job reports that it took too long, whose first call the server knows no script of."""
    if not shell.is_memory:
        store.script_flush()
    streams = shell.manager()

    try:
        raise TimeoutError("of the caller's")
    except TimeoutError:
        event_id = streams.send_event("room", "took too long")

    assert streams.info("room").last_event_id == event_id
