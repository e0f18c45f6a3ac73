"""The kit's reader of event streams agrees with the standard's, sentence by sentence."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamy_redis.testing.parser import EventStreamParser, StreamEvent
from tests.event_stream import EventStreamParser as Oracle

PIECES = st.sampled_from(
    [
        *("data", "event", "id", "retry", "datum", ":", ": ", " ", "\n", "\r", "\r\n", "\n\n"),
        *("a", "5", "٣", "-", "\0", "\ufeff", "\u2028", "ü", "data: x\n", "id: 1\n", "retry: 7\n"),
    ]
)


@example(["\ufeff", "data: x\n", "\n"], 1)
@example(["data: x\r\n", "data: y\r\n", "\r\n"], 8)
@given(st.lists(PIECES, max_size=40), st.integers(1, 9))
def test_it_sees_what_a_browser_sees(pieces: list[str], size: int):
    stream = "".join(pieces).encode()
    chunks = [stream[i : i + size] for i in range(0, len(stream), size)]
    parser, oracle = EventStreamParser(), Oracle()

    events = [event for chunk in chunks for event in parser.feed(chunk)]
    expected = [event for chunk in chunks for event in oracle.feed(chunk)]

    assert [(e.name, e.data, e.id) for e in events] == [
        (e.type, e.data, e.last_event_id) for e in expected
    ]
    assert parser.last_event_id == oracle.last_event_id


def test_broken_utf8_is_replaced_and_a_character_may_come_in_pieces():
    parser = EventStreamParser()

    events = [
        e
        for b in "data: ü\n\ndata: \udcff\n\n".encode(errors="surrogateescape")
        for e in parser.feed(bytes([b]))
    ]

    assert [e.data for e in events] == ["ü", "\ufffd"]


def test_an_event_carries_the_retry_of_its_own_block():
    events = EventStreamParser().feed(b"retry: 5\n\ndata: a\n\nretry: 6\ndata: b\n\ndata: c\n\n")

    assert [e.retry for e in events] == [None, 6, None]


def test_data_that_is_no_json_is_an_error():
    assert StreamEvent("", "message", "[1]").json() == [1]
    with pytest.raises(ValueError, match="Expecting"):
        StreamEvent("", "message", "x").json()
