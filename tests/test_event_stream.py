"""The oracle itself, on the examples of the HTML standard (9.2.5 and 9.2.6)."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from .event_stream import EventStreamParser, MessageEvent, events_of


def message(data: str, *, type: str = "message", id: str = "") -> MessageEvent:
    return MessageEvent(type, data, id)


def test_joins_the_data_lines_of_a_block_with_newlines():
    stream = b"data: YHOO\ndata: +2\ndata: 10\n\n"

    assert events_of(stream) == [message("YHOO\n+2\n10")]


def test_takes_comments_ids_and_the_reset_of_an_id():
    stream = (
        b": test stream\n\ndata: first event\nid: 1\n\n"
        b"data:second event\nid\n\ndata:  third event\n\n"
    )

    assert events_of(stream) == [
        message("first event", id="1"),
        message("second event"),
        message(" third event"),
    ]


def test_fires_empty_data_and_a_lone_newline_but_no_unfinished_block():
    assert events_of(b"data\n\ndata\ndata\n\ndata:") == [message(""), message("\n")]


def test_ignores_one_space_after_the_colon():
    assert events_of(b"data:test\n\ndata: test\n\n") == [message("test"), message("test")]


def test_names_an_event_by_its_event_field_once():
    stream = b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: 113411\n\n"

    assert events_of(stream) == [
        message("73857293", type="add"),
        message("2153", type="remove"),
        message("113411"),
    ]


def test_ends_lines_at_cr_lf_and_crlf_and_nowhere_else():
    text = "data: a\u2028b\x85c\x0bd\x0ce\r\rdata: f\r\n\r\ndata: g\n\n"

    assert [e.data for e in events_of(text.encode())] == ["a\u2028b\x85c\x0bd\x0ce", "f", "g"]


def test_does_not_split_crlf_that_comes_in_two_chunks():
    assert events_of([b"data: a\r", b"\ndata: b\r", b"\n\r", b"\n"]) == [message("a\nb")]


def test_dispatches_at_a_cr_without_waiting_for_an_lf():
    assert events_of([b"data: a\r\r"]) == [message("a")]


def test_strips_one_leading_bom_only():
    bom = b"\xef\xbb\xbf"

    assert events_of(bom + b"data: a\n\n") == [message("a")]
    assert events_of(bom + bom + b"data: a\n\n") == []
    assert events_of([bom[:1], bom[1:], b"data: " + bom + b"a\n\n"]) == [message("\ufeffa")]


def test_ignores_an_id_with_nul():
    assert events_of(b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n") == [
        message("a", id="1"),
        message("b", id="1"),
    ]


def test_an_id_without_data_moves_the_cursor_and_fires_nothing():
    parser = EventStreamParser("old")

    assert parser.feed(b"id: 7\n") == []
    assert parser.last_event_id == "old"
    assert parser.feed(b"\n") == []
    assert parser.last_event_id == "7"


def test_a_block_without_id_on_a_new_connection_clears_the_cursor():
    # The buffer starts empty and is copied at each blank line: nothing may be sent before an id.
    parser = EventStreamParser("7")

    assert parser.feed(b"retry: 1\n") == []
    assert parser.last_event_id == "7"
    parser.feed(b"\n")
    assert parser.last_event_id == ""


def test_takes_retry_of_ascii_digits_only():
    parser = EventStreamParser()

    parser.feed(b"retry: 250\n")
    assert parser.retry == 250
    parser.feed("retry: 1.5\nretry: -1\nretry: ٣\nretry:\nretry:  5\n".encode())
    assert parser.retry == 250


def test_a_type_without_data_does_not_leak_into_the_next_event():
    assert events_of(b"event: a\n\ndata: b\n\n") == [message("b")]


def test_field_names_are_case_sensitive_and_unknown_ones_are_ignored():
    assert events_of(b"Data: a\nDATA: b\nfoo: c\ndata : d\n data: e\ndata: f\n\n") == [message("f")]


def test_broken_utf8_becomes_replacement_characters():
    assert events_of(b"data: \xff\xfe\n\n") == [message("\ufffd\ufffd")]


@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_any_chunking_gives_the_same_events(noise: bytes, cuts: list[int]):
    stream = b"id: 1\r\ndata: \xc3\xa9\r\rdata: b\n\n" + noise + b"\n\ndata: z\r\n\r\n"
    edges = sorted({0, len(stream), *cuts})
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]

    assert events_of(chunks) == events_of(stream)
