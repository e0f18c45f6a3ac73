"""decode(encode(x)) is x, for everything that is accepted; the oracle decodes."""

from __future__ import annotations

import itertools
import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streamy_redis.config import StreamConfig
from streamy_redis.core.event import (
    KEEP_ALIVE,
    encode_data,
    encode_end,
    encode_event,
    open_frame,
    read_frame,
    reset_frame,
    written_size,
)
from streamy_redis.core.publication import Publication
from streamy_redis.exceptions import InvalidEvent
from tests.event_stream import EventStreamParser, MessageEvent, events_of

EVENT_ID = "1700000000000000-7-0123abcd"
TAIL = f"id: {EVENT_ID}\n\n".encode()

# What JSON itself carries without loss: no NaN, no ints that become other types, str keys.
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
).filter(lambda value: not isinstance(value, str))
# Lines that end in every way, and everything that looks like the protocol itself.
text = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from(
            [
                "\r",
                "\n",
                "\r\n",
                ":",
                "data: ",
                "id: 1",
                "event: x",
                "\u2028",
                "\x85",
                "\0",
                " ",
                "a",
            ]
        )
    ).map("".join),
)
names = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), min_size=1)
names = names.filter(lambda name: not name.startswith("stream-"))


def encode(data: object, event_name: str | None = None, retry: int | None = None) -> bytes:
    return encode_event(
        data, event_name, retry, max_size=1 << 20, to_json=StreamConfig().json_encoder
    )


def as_lines_in_a_browser(data: str) -> str:
    """SSE has one line end: CRLF and CR arrive as LF."""
    return re.sub("\r\n|\r", "\n", data)


@given(text)
def test_text_survives(data: str):
    (event,) = events_of(encode(data) + TAIL)

    assert event == MessageEvent("message", as_lines_in_a_browser(data), EVENT_ID)


@given(text)
def test_bytes_of_utf8_are_that_text(data: str):
    assert encode(data.encode()) == encode(data)


@given(json_values)
def test_json_survives(data: object):
    (event,) = events_of(encode(data) + TAIL)

    assert json.loads(event.data) == data
    assert "\n" not in event.data


@given(names, st.none() | st.integers(0, 2**31 - 1), text)
def test_names_and_retry_survive(name: str, retry: int | None, data: str):
    parser = EventStreamParser()

    (event,) = parser.feed(encode(data, name, retry) + TAIL)

    assert event == MessageEvent(name, as_lines_in_a_browser(data), EVENT_ID)
    assert parser.retry == retry


@given(st.lists(st.tuples(st.none() | names, text), max_size=5))
def test_nothing_leaks_from_one_event_into_another(events: list[tuple[str | None, str]]):
    stream = b"".join(encode(data, name) + TAIL for name, data in events)

    assert [(e.type, e.data) for e in events_of(stream)] == [
        (name or "message", as_lines_in_a_browser(data)) for name, data in events
    ]


@given(text, names, st.lists(st.integers(0, 40)))
def test_keep_alives_between_blocks_and_any_chunking_change_nothing(
    data: str, name: str, cuts: list[int]
):
    stream = KEEP_ALIVE + encode(data, name) + TAIL + KEEP_ALIVE + encode("end") + TAIL
    edges = sorted({0, len(stream), *(c for c in cuts if c < len(stream))})
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]

    assert events_of(chunks) == events_of(stream)
    assert [e.data for e in events_of(stream)] == [as_lines_in_a_browser(data), "end"]


@given(text, st.none() | names)
def test_a_subscription_sees_what_a_browser_sees(data: str, name: str | None):
    frame = encode(data, name) + TAIL
    (event,) = events_of(frame)

    received = read_frame("room", frame)

    assert (received.name, received.data, received.id) == (event.type, event.data, EVENT_ID)


@given(text, st.none() | names, names)
def test_a_name_for_unnamed_events_leaves_named_ones_alone(
    data: str, name: str | None, default: str
):
    publication = Publication.parse(encode(data, name) + TAIL)
    assert publication is not None

    (event,) = events_of(publication.named(default))

    assert event == MessageEvent(name or default, as_lines_in_a_browser(data), EVENT_ID)


@given(text, names)
def test_every_frame_is_taken_for_a_publication_with_and_without_an_id(data: str, name: str):
    for tail in (TAIL, b":\n\n"):
        publication = Publication.parse(encode(data, name) + tail)
        assert publication is not None
        assert publication.frame == encode(data, name) + tail
        assert not publication.is_end


def test_a_message_may_say_when_it_was_sent_which_is_no_part_of_the_frame():
    for tail in (TAIL, b":\n\n"):
        frame = encode("x") + tail
        stamped = Publication.parse(frame + b":1800000000123456\n")
        plain = Publication.parse(frame)

        assert stamped is not None
        assert plain is not None
        assert (stamped.frame, stamped.position) == (frame, plain.position)
        assert stamped.sent_at == 1_800_000_000_123_456
        assert plain.sent_at is None


@pytest.mark.parametrize(
    "rest",
    [
        *(b":", b":\n", b":1\n", b":0800000000123456\n", b":18000000001234567\n", b"\n"),
        *(b":180000000012345x\n", b":1800000000123456", b":1800000000123456\n\n"),
        *(b"1800000000123456\n", b":1800000000123456\r", b": 1800000000123456\n"),
        *(b"data: y\n\n:1800000000123456\n", ":180000000012345\u0661\n".encode()),
    ],
)
def test_whatever_else_stands_behind_a_frame_is_foreign(rest: bytes):
    assert Publication.parse(encode("x") + TAIL + rest) is None


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_never_taken_for_two_events(payload: bytes):
    publication = Publication.parse(payload)

    if publication is not None:
        assert len(events_of(payload)) <= 1


@example("data: x\r\rdata: y")
@given(st.lists(st.sampled_from(["data: x\r", "data: y\n", "\r", "\n"])).map("".join))
def test_no_forged_frame_carries_a_second_block(rest: str):
    payload = rest.encode() + TAIL

    if Publication.parse(payload) is not None:
        assert len(events_of(payload)) <= 1


@pytest.mark.parametrize("data", [None, "", "bye", "two\nlines", {"a": 1}])
def test_an_end_is_told_from_an_event_by_its_frame(data: object):
    block = encode_end(data, max_size=100, to_json=StreamConfig().json_encoder)
    publication = Publication.parse(block + TAIL)

    (event,) = events_of(block + TAIL)
    assert publication is not None
    assert publication.is_end
    assert event.type == "stream-end"
    assert publication.named("other") == publication.frame
    assert event.data == (
        data if isinstance(data, str) else json.dumps(data or {}, separators=(",", ":"))
    )


def test_data_that_looks_like_an_end_is_none():
    publication = Publication.parse(encode("event: stream-end\n") + TAIL)

    assert publication is not None
    assert not publication.is_end


def test_the_first_block_of_a_response_is_one_event_with_a_cursor():
    parser = EventStreamParser()

    assert parser.feed(b"retry: 1234\n") == []
    assert parser.feed(KEEP_ALIVE + KEEP_ALIVE) == []
    assert parser.feed(open_frame(EVENT_ID)) == [MessageEvent("stream-open", "{}", EVENT_ID)]
    assert parser.retry == 1234


@pytest.mark.parametrize("first", [None, EVENT_ID])
def test_a_reset_tells_reason_cursor_and_first(first: str | None):
    block = reset_frame(EVENT_ID, reason="trimmed", requested="1-1-0", first=first)

    (event,) = events_of(block)

    assert (event.type, event.last_event_id) == ("stream-reset", EVENT_ID)
    assert json.loads(event.data) == {"reason": "trimmed", "requested": "1-1-0", "first": first}


@given(text, st.text(max_size=200), st.none() | st.integers(0, 2**31 - 1))
def test_a_frame_is_less_than_640_bytes_longer_than_what_was_counted(
    data: str, name: str, retry: int | None
):
    name = re.sub("[\r\n\0]", "", name).removeprefix("stream-")
    content = encode_data(data, max_size=1 << 20, to_json=json.dumps)
    frame = encode(data, name, retry) + f"id: {'9' * 16}-{'9' * 16}-{'f' * 8}\n\n".encode()

    assert len(frame) <= written_size(content) + len(name.encode()) + 128


@given(
    st.text(st.characters(categories=["Cs"]), min_size=1, max_size=2),
    st.text(max_size=3),
)
def test_lone_surrogates_are_refused_everywhere(surrogate: str, around: str):
    for data in (around + surrogate, [surrogate + around], {surrogate: 1}):
        with pytest.raises(InvalidEvent):
            encode(data)
    with pytest.raises(InvalidEvent):
        encode("x", around + surrogate)
