"""A live subscription heals itself and is never misled."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.deadline import Deadline

from .conftest import EventId, Shell

pytestmark = pytest.mark.each_server


def test_a_slow_subscriber_is_bridged_from_the_log_without_loss(shell: Shell):
    streams = shell.manager(max_backlog=5)
    reader = shell.reader(streams, "room")
    other = shell.reader(streams, "room")
    reader.pause()

    for n in range(300):
        streams.send_event("room", str(n))
    assert other.wait_for(300)
    reader.go_on()

    reader.wait_for(300)
    assert reader.data == [str(n) for n in range(300)]
    assert reader.gets_no_more(0.1)


def test_a_backlog_is_bounded_in_bytes_too(shell: Shell):
    streams = shell.manager(max_backlog_bytes=10_000)
    reader = shell.reader(streams, "room")
    reader.pause()

    for n in range(30):
        streams.send_event("room", f"{n} " + "x" * 4000)
    streams.send_event("room", "30 " + "x" * 50_000)
    reader.go_on()

    reader.wait_for(31)
    assert [data.split()[0] for data in reader.data] == [str(n) for n in range(31)]
    assert set(reader.kinds) == {"event"}


def test_a_slow_subscriber_that_history_left_behind_gets_a_reset_at_each_gap(shell: Shell):
    streams = shell.manager(max_backlog=5, history_length=10)
    reader = shell.reader(streams, "room")
    reader.pause()

    ids = [streams.send_event("room", str(n)) for n in range(200)]
    reader.go_on()

    Deadline(10).until(lambda: ids[-1] in reader.ids, lambda: reader.received)
    assert "reset" in reader.kinds
    expected = 0
    after_reset = False
    for event in reader.received:
        if event.kind == "reset":
            assert not after_reset, "one reset a gap"
            after_reset = True
            continue
        assert (int(event.data) > expected) if after_reset else (int(event.data) == expected)
        expected, after_reset = int(event.data) + 1, False
    assert expected == 200


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe\x00",
        b"hello",
        b":\n",
        b"\n\n",
        b"data: x\n\n",
        b"data: x\nid: 1-1-0123abcd\n\n",
        b"data: from the future\nid: 9000000000000000-1-0123abcd\n\n",
        b"event: stream-end\ndata: \nid: 9000000000000000-1-0123abcd\n\n",
        b"data: x\nid: 99999999999999999999-1-0123abcd\n\n",
        b"data: again\nid: {epoch}-1-{tag}\n\n",
        b"data: again with another tag\nid: {epoch}-2-{tag}\n\n",
        b"data: behind a hole\nid: {epoch}-900-0123abcd\n\n",
        b"id: {epoch}-3-0123abcd\n",
    ],
    ids=repr,
)
def test_junk_on_the_channel_is_skipped(shell: Shell, streams: Any, store: Any, payload: bytes):
    reader = shell.reader(streams, "room")
    ids = streams.send_events("room", ["a", "b"])
    reader.wait_for(2)
    first = EventId.parse(ids[0])
    payload = payload.replace(b"{epoch}", str(first.epoch).encode())
    payload = payload.replace(b"{tag}", first.tag.encode())

    store.publish(shell.channel("room"), payload)
    for data in ("c", "d"):
        ids.append(streams.send_event("room", data))
        reader.wait_for(len(ids))

    # What is delivered wrongly comes before "d" is.
    assert (reader.ids, reader.data) == (ids, ["a", "b", "c", "d"])


def test_junk_before_the_first_event_is_skipped(shell: Shell, streams: Any, store: Any):
    reader = shell.reader(streams, "room")

    store.publish(shell.channel("room"), b"data: another life\nid: 9000000000000000-1-0123abcd\n\n")
    ids = [streams.send_event("room", str(n)) for n in range(2)]

    reader.wait_for(2)
    assert (reader.ids, reader.data) == (ids, ["0", "1"])


@pytest.mark.parametrize("entry_id", ["*", "0-1"])
def test_foreign_entries_before_the_first_event_are_skipped(
    shell: Shell, streams: Any, store: Any, entry_id: str
):
    reader = shell.reader(streams, "room")
    store.xadd(shell.log("room"), {"foreign": "entry"}, id=entry_id)

    sent = streams.send_event("room", "a")

    assert reader.wait_for(1)[0].id == sent
    replayed = shell.reader(streams, "room", replay="all").wait_for(1)
    assert [(e.kind, e.id) for e in replayed] == [("event", sent)]
    assert reader.gets_no_more(0.1)


@pytest.mark.parametrize(
    "fields",
    [
        {"foreign": "entry"},
        {"frame": "x", "nonce": "n", "kind": "event", "previous": "0"},
        {"frame": b"\xff" * 50, "nonce": "n", "kind": "end", "previous": "0"},
    ],
    ids=["other fields", "no frame", "bytes"],
)
def test_foreign_entries_between_events_are_skipped_without_a_reset(
    shell: Shell, streams: Any, store: Any, fields: dict[Any, Any]
):
    reader = shell.reader(streams, "room")
    first = streams.send_event("room", "a")
    store.xadd(shell.log("room"), fields)
    store.xadd(shell.log("room"), fields)

    second = streams.send_event("room", "b")

    resumed = shell.reader(streams, "room", last_event_id=first)
    replayed = shell.reader(streams, "room", replay=2)
    third = streams.send_event("room", "c")

    assert [(e.kind, e.id) for e in reader.wait_for(3)] == [
        ("event", event_id) for event_id in (first, second, third)
    ]
    assert [e.id for e in resumed.wait_for(2)] == [second, third]
    assert [e.id for e in replayed.wait_for(3)] == [first, second, third]


@pytest.mark.parametrize("place", ["99999999999999999-1", "9000000000000000-5"])
def test_a_foreign_entry_where_no_clock_has_come_to_moves_nobody(
    shell: Shell, streams: Any, store: Any, place: str
):
    reader = shell.reader(streams, "room")
    ids = streams.send_events("room", ["a", "b"])
    store.xadd(shell.log("room"), {"foreign": "entry"}, id=place)

    assert streams.info("room").last_event_id == ids[1]
    readers = [
        shell.reader(streams, "room", last_event_id=ids[1]),
        shell.reader(streams, "room", last_event_id=ids[0]),
        shell.reader(streams, "room", replay="all"),
    ]
    ids.append(streams.send_event("room", "c"))
    # As if it had stood there from the beginning.
    expected = {readers[0]: ids[2:], readers[1]: ids[1:], readers[2]: ids, reader: ids}

    for each, wanted in expected.items():
        each.wait_for(len(wanted))
        assert (each.ids, set(each.kinds)) == (wanted, {"event"})
    assert ids[2].split("-")[:2] == [ids[1].split("-")[0], "3"]


@pytest.mark.parametrize("place", ["99999999999999999-1", "9000000000000000-5"])
def test_a_foreign_entry_where_no_clock_has_come_to_begins_no_life(
    shell: Shell, streams: Any, store: Any, place: str
):
    store.xadd(shell.log("room"), {"foreign": "entry"}, id=place)
    reader = shell.reader(streams, "room")
    assert not streams.info("room").exists

    sent = streams.send_event("room", "a")

    assert [(e.kind, e.id) for e in reader.wait_for(1)] == [("event", sent)]
    assert abs(int(sent.split("-")[0]) / 1e6 - time.time()) < 60


@pytest.mark.parametrize(
    "block", ["data: x\n\ndata: smuggled\n", "data: x\rdata: y\n", "data: x", "x\n"]
)
def test_a_malformed_frame_in_the_log_is_skipped_without_a_reset(
    shell: Shell, streams: Any, store: Any, block: str
):
    ids = streams.send_events("room", ["a", "b"])
    epoch, seq, tag = ids[-1].split("-")
    entry_id = f"{epoch}-{int(seq) + 1}"
    frame = f"{block}id: {entry_id}-{tag}\n\n"
    fields = {"frame": frame, "nonce": "n", "kind": "event", "previous": tag}
    store.xadd(shell.log("room"), fields, id=entry_id)
    ids += streams.send_events("room", ["c", "d"])

    resumed = shell.reader(streams, "room", last_event_id=ids[0])
    replayed = shell.reader(streams, "room", replay="all")

    assert [(e.kind, e.id, e.data) for e in resumed.wait_for(3)] == [
        ("event", event_id, data) for event_id, data in zip(ids[1:], "bcd", strict=True)
    ]
    assert [e.id for e in replayed.wait_for(4)] == ids


def test_a_foreign_entry_in_the_log_is_logged_once(
    shell: Shell, streams: Any, store: Any, caplog: pytest.LogCaptureFixture
):
    first = streams.send_event("room", "a")
    store.xadd(shell.log("room"), {"foreign": "entry"})
    streams.send_event("room", "b")

    def skipped() -> list[str]:
        return [text for text in caplog.messages if "foreign" in text]

    shell.reader(streams, "room", last_event_id=first).wait_for(1)
    Deadline(5).until(skipped)
    shell.reader(streams, "room", last_event_id=first).wait_for(1)

    assert skipped() == ["skipped a foreign entry in the log of 'room'; more are not logged"]


def test_a_foreign_entry_at_the_end_delays_nothing(shell: Shell, streams: Any, store: Any):
    ids = streams.send_events("room", ["a", "b"])
    store.xadd(shell.log("room"), {"foreign": "entry"})

    reader = shell.reader(streams, "room", last_event_id=ids[1])
    ids.append(streams.send_event("room", "c"))

    assert [(e.kind, e.id) for e in reader.wait_for(1)] == [("event", ids[2])]


def test_many_streams_at_once_mix_nothing_up(shell: Shell, streams: Any):
    readers = {f"room {n}": shell.reader(streams, f"room {n}") for n in range(30)}

    for n in range(10):
        for room in readers:
            streams.send_event(room, f"{room} event {n}")

    for room, reader in readers.items():
        reader.wait_for(10)
        assert reader.data == [f"{room} event {n}" for n in range(10)]


def test_subscribers_that_come_while_events_flow_miss_and_repeat_nothing(shell: Shell):
    streams = shell.manager(history_length=5000)
    stop = threading.Event()
    sent: list[str] = []

    def send() -> None:
        while not stop.is_set():
            sent.append(streams.send_event("room", str(len(sent))))

    thread = threading.Thread(target=send)
    thread.start()
    Deadline(5).until(lambda: len(sent) > 10)
    readers = []
    for n in range(30):
        how = [{}, {"replay": 3}, {"replay": "all"}, {"last_event_id": sent[len(sent) // 2]}][n % 4]
        readers.append(shell.reader(streams, "room", **how))
    stop.set()
    thread.join(10)

    for reader in readers:
        Deadline(10).until(
            lambda reader=reader: reader.received and reader.received[-1].id == sent[-1],
            lambda reader=reader: (len(sent), reader.received[-3:]),
        ) if reader.received else None
        start = sent.index(reader.ids[0]) if reader.received else len(sent)
        assert reader.ids == sent[start:], "every event once, in order, from its first on"


@pytest.mark.real_server
def test_killed_connections_lose_and_repeat_nothing(shell: Shell, streams: Any, store: Any):
    reader = shell.reader(streams, "room")
    sent = []
    for n in range(200):
        if n % 10 == 0:
            store.client_kill_filter(_type="pubsub")
        sent.append(streams.send_event("room", str(n)))

    reader.wait_for(200, timeout=20)
    assert reader.ids == sent


@pytest.mark.real_server
def test_what_was_sent_while_the_feed_was_cut_arrives_without_another_event(
    shell: Shell, streams: Any, store: Any
):
    reader = shell.reader(streams, "room")

    for n in range(5):
        assert store.client_kill_filter(_type="pubsub") >= 1
        streams.send_event("room", str(n))
        # Long before the position check would find it.
        reader.wait_for(n + 1, timeout=2)

    assert reader.data == [str(n) for n in range(5)]


@pytest.mark.real_server
def test_an_event_that_was_never_published_is_found_in_the_log(shell: Shell, store: Any):
    streams = shell.manager(position_check_interval=0.3)
    reader = shell.reader(streams, "room")
    first = EventId.parse(streams.send_event("room", "a"))
    reader.wait_for(1)

    # As a send whose PUBLISH an ACL refused, or whose message a lagging connection lost.
    event_id = f"{first.epoch}-2-0123abcd"
    frame = f"data: silent\nid: {event_id}\n\n"
    store.xadd(
        shell.log("room"),
        {"frame": frame, "nonce": "n", "kind": "event", "previous": first.tag},
        id=f"{first.epoch}-2",
    )

    assert reader.wait_for(2, timeout=5)[1].id == event_id


@pytest.mark.real_server
def test_one_connection_carries_all_subscriptions(shell: Shell, streams: Any, store: Any):
    before = len(store.client_list(_type="pubsub"))
    for n in range(20):
        shell.reader(streams, f"room {n}")

    assert len(store.client_list(_type="pubsub")) == before + 1


@pytest.mark.one_server
def test_a_channel_is_left_within_5_s_of_its_last_subscriber(
    shell: Shell, streams: Any, store: Any
):
    other = shell.reader(streams, "other")

    def subscribers(stream_id: str) -> int:
        return store.pubsub_numsub(shell.channel(stream_id))[0][1]  # type: ignore[no-any-return]

    with streams.subscribe("room"), streams.subscribe("room"):
        assert subscribers("room") == 1
    Deadline(5).until(lambda: subscribers("room") == 0)

    assert subscribers("other") == 1
    streams.send_event("other", "still here")
    assert other.wait_for(1)[0].data == "still here"
