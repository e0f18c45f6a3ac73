"""One event in, one event out: through a real response of both frameworks, by the oracle."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import h11
import pytest
from flask import Flask
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamy_redis import AsyncStreamManager, InvalidEvent, StreamConfig, StreamManager
from streamy_redis.core.headers import stream_headers
from streamy_redis.core.publication import Position
from tests.event_stream import events_of
from tests.managers import LoopThread

FRAMEWORKS = ["flask", "starlette"]
# Whatever would be a line, a field, an event, a header or a command if anybody took it for one.
PIECES = [
    *("\n", "\r", "\r\n", "\n\n", "\r\r", "\0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\ufeff"),
    *(
        "data: x",
        "event: stream-end",
        "id: 1-1-00000000",
        "retry: 0",
        ":",
        " ",
        "*1\r\n$8\r\nFLUSHALL",
    ),
    *("HTTP/1.1 200 OK", "0\r\n\r\n", "{", "}", "%0a", "'", '"', "\\n", "<script>", "é", "😀"),
]
hostile = st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text(max_size=20)
names = hostile.filter(lambda n: not re.search("[\r\n\0]", n) and not n.startswith("stream-"))
SOME = settings(max_examples=40, deadline=None)


class Answer:
    """What a client gets."""

    def __init__(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body
        self.events = events_of(body)


Get = Callable[..., Answer]


@pytest.fixture(scope="module")
def prefix() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def streams(shared_servers: Any, prefix: str) -> Iterator[StreamManager]:
    config = StreamConfig(prefix=prefix)
    with StreamManager(shared_servers.url("valkey"), config=config) as streams:
        yield streams


@pytest.fixture(scope="module", params=FRAMEWORKS)
def get(
    request: pytest.FixtureRequest, streams: StreamManager, shared_servers: Any, prefix: str
) -> Iterator[Get]:
    """Asks for a stream that has ended, with get_stream's arguments and a Last-Event-ID."""
    if request.param == "flask":
        yield lambda stream_id, cursor=None, **options: of_flask(
            lambda: streams.get_stream(stream_id, **options), cursor
        )
        return
    loop = LoopThread()
    manager = AsyncStreamManager(shared_servers.url("valkey"), config=StreamConfig(prefix=prefix))
    yield lambda stream_id, cursor=None, **options: loop.run(
        of_starlette(manager.get_stream(stream_id, **options), cursor)
    )
    loop.run(manager.aclose())
    loop.close()


def of_flask(view: Callable[[], Any], cursor: bytes | None) -> Answer:
    app = Flask(__name__)
    app.testing = True  # errors come through
    app.add_url_rule("/", view_func=view)
    # As a server does it: header values are bytes, shown as Latin-1.
    environ = {} if cursor is None else {"HTTP_LAST_EVENT_ID": cursor.decode("latin-1")}
    answer = app.test_client().get("/", environ_overrides=environ)
    return Answer(answer.status_code, list(answer.headers), answer.data)


async def of_starlette(response: Any, cursor: bytes | None) -> Answer:
    messages: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        messages.append(message)

    headers = [] if cursor is None else [(b"last-event-id", cursor)]
    await response({"type": "http", "method": "GET", "headers": headers}, receive, send)
    start, *rest = messages
    fields = [(name.decode("latin-1"), v.decode("latin-1")) for name, v in start["headers"]]
    return Answer(start["status"], fields, b"".join(message["body"] for message in rest))


def new_id() -> str:
    return uuid.uuid4().hex


def as_lines(data: str) -> str:
    return re.sub("\r\n|\r", "\n", data)


@SOME
@given(
    st.lists(st.tuples(hostile, st.none() | names), min_size=1, max_size=5), hostile, names, hostile
)
def test_no_data_and_no_name_is_more_or_less_than_its_event(
    get: Get,
    streams: StreamManager,
    sent: list[tuple[str, str | None]],
    end: str,
    default: str,
    suffix: str,
):
    stream_id = f"{new_id()} {re.sub('[^ -~]', '', suffix)}"
    ids = [streams.send_event(stream_id, data, name) for data, name in sent]
    streams.end_stream(stream_id, end)

    answer = get(stream_id, event_name=default, replay="all")

    first, *events, last = answer.events
    assert (first.type, first.data) == ("stream-open", "{}")
    assert [(e.type, e.data, e.last_event_id) for e in events] == [
        (name or default or "message", as_lines(data), event_id)
        for (data, name), event_id in zip(sent, ids, strict=True)
    ]
    assert (last.type, last.data) == ("stream-end", as_lines(end))
    assert answer.body.count(b"\nretry:") == 0
    assert answer.body.startswith(b"retry: ")


@pytest.mark.parametrize(
    "name", ["a\nid: 1", "a\r\ndata: x", "a\rb", "a\0", "stream-end", "\ud800"]
)
def test_a_name_that_would_be_more_is_refused_everywhere(
    get: Get, streams: StreamManager, name: str
):
    stream_id = new_id()

    with pytest.raises(InvalidEvent, match="event_name"):
        streams.send_event(stream_id, "x", name)
    with pytest.raises(InvalidEvent, match="event_name"):
        get(stream_id, event_name=name)

    assert not streams.info(stream_id).exists


# Text that looks like a cursor, and hardly does.
digits = st.sampled_from(
    ["0", "1", "7", "01", "-1", "+1", " 1", "9" * 15, "9" * 16, "9" * 17, "\u0661"]
)
tags = st.sampled_from(["0", "00", "0123abcd", "0123ABCD", "0123abcd\n", "x", "", "0123abcd-1"])
cursors = (
    st.builds("{}-{}-{}".format, digits | st.integers(), digits | st.integers(), tags)
    | hostile
    | st.sampled_from(["$", "+", "-", "*", ">", "0-0", "(1-0", " 1-1-0", "1-1-0 "])
)


@given(cursors | st.none() | st.integers() | st.binary(max_size=30))
def test_the_cursor_parser_takes_what_the_server_writes_and_nothing_else(cursor: Any):
    position = Position.parse(cursor)

    if position is not None:
        assert str(position) == cursor
        assert re.fullmatch(r"[0-9a-f-]{5,41}", cursor, re.ASCII)
        assert max(position.epoch, position.seq) < 2**63


@given(
    st.integers(1, 10**16 - 1),
    st.integers(0, 10**16 - 1),
    st.just("0") | st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
)
def test_every_event_id_is_a_cursor(epoch: int, seq: int, tag: str):
    position = Position(epoch, seq, tag)

    assert Position.parse(str(position)) == position


@pytest.fixture(scope="module")
def ended(streams: StreamManager) -> str:
    stream_id = new_id()
    streams.send_events(stream_id, ["a", "b"])
    streams.end_stream(stream_id, "bye")
    return stream_id


@SOME
@given(cursors)
def test_no_cursor_is_an_error_or_comes_back(get: Get, ended: str, cursor: str):
    raw = re.sub("[\r\n\0]", "", cursor).encode()

    from_header = get(ended, raw, replay="all")
    from_argument = get(ended, last_event_id=cursor, replay="all")

    for answer, given_cursor in ((from_header, raw.decode("latin-1")), (from_argument, cursor)):
        assert answer.status == 200
        expected = ["stream-open", "message", "message", "stream-end"]
        # One of the right form, but of no event of this stream.
        if Position.parse(given_cursor) is not None:
            expected.insert(1, "stream-reset")
        assert [e.type for e in answer.events] == expected


@SOME
@given(st.binary(max_size=60).filter(lambda raw: not re.search(rb"[\r\n\0]", raw)))
def test_no_bytes_in_last_event_id_are_an_error(get: Get, ended: str, raw: bytes):
    assert [e.data for e in get(ended, raw, replay="all").events] == ["{}", "a", "b", "bye"]


# Names and values: most of them HTTP can't carry.
fields = st.tuples(
    st.sampled_from(["X-A", "x_b", "X A", "", "a:b", "é", "X-A\r\nX-B", "Set-Cookie"]) | hostile,
    hostile | st.text(st.characters(max_codepoint=0x17F), max_size=10),
)


@given(st.lists(fields, max_size=3))
def test_headers_arrive_as_they_were_given_or_are_refused(given_headers: list[tuple[str, str]]):
    try:
        headers = stream_headers(given_headers)
    except InvalidEvent:
        return

    # h11 writes them as a server does, and reads them as a client does.
    server, client = h11.Connection(h11.SERVER), h11.Connection(h11.CLIENT)
    raw = [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    client.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    client.receive_data(server.send(h11.Response(status_code=200, headers=raw)) or b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    seen = [field for field in response.headers if field[0] != b"connection"]
    assert [tuple(field) for field in seen if field[0] != b"transfer-encoding"] == raw
    for name, value in given_headers:
        assert (name.lower(), value) in headers


@SOME
@given(st.lists(fields, max_size=2, unique_by=lambda field: field[0].lower()))
def test_headers_of_a_response_are_one_each(
    get: Get, ended: str, given_headers: list[tuple[str, str]]
):
    # The test client of Flask reads cookies itself, and stumbles over odd ones.
    assume(all(name.lower() != "set-cookie" for name, _ in given_headers))
    try:
        answer = get(ended, headers=given_headers)
    except InvalidEvent:
        return
    for name, value in {name.lower(): value for name, value in given_headers}.items():
        assert answer.headers[name] == value


def is_good(stream_id: str) -> bool:
    """The rule, as the design has it."""
    try:
        size = len(stream_id.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= 512 and not re.search("[\0-\x1f\x7f-\x9f]", stream_id)


any_text = st.text(st.characters(), max_size=10) | st.builds(
    str.__mul__, st.sampled_from("aé😀"), st.integers(120, 520)
)


@pytest.mark.parametrize("kind", FRAMEWORKS)
@given(hostile | any_text)
def test_a_stream_id_is_taken_or_answered_with_400(kind: str, stream_id: str):
    # Nothing is asked of Redis yet.
    manager = (StreamManager if kind == "flask" else AsyncStreamManager)("redis://127.0.0.1:1/0")

    response: Any = manager.get_stream(stream_id)

    assert response.status_code == (200 if is_good(stream_id) else 400)
    if response.status_code == 400:
        text = response.data if kind == "flask" else response.body
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(rb"stream_id must [a-z0-9A-Z ,-]+\n", text), "the id isn't in it"
