"""Events: what may be sent, and how one is written as an SSE block and read back.

A block is the lines of one event as HTML 9.2.5 writes them. A frame is a block with its ``id:``
line and the blank line behind it. The order of lines is fixed (event, retry, data, id): a frame's
first bytes tell what it is, and a client that takes its cursor as soon as it sees the ``id:`` line
(fetch-event-source) has the event by then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..exceptions import InvalidEvent
from ..jsonable import check_json

__all__ = [
    "END",
    "KEEP_ALIVE",
    "LONGEST_NAME",
    "OPEN",
    "RESET",
    "Event",
    "ReceivedEvent",
    "encode_data",
    "encode_end",
    "encode_event",
    "encode_events",
    "open_frame",
    "read_frame",
    "reset_frame",
    "validate_event_name",
    "written_size",
]

OPEN = "stream-open"
RESET = "stream-reset"
END = "stream-end"

# A comment, and one newline only: several clients deliver an empty event at a blank line.
KEEP_ALIVE = b":\n"

# HTML 9.2.6: lines end at CRLF, LF and CR, and at nothing else (str.splitlines knows more).
_NOT_IN_A_LINE = re.compile(r"[\r\n\0]")
_LINE_END = re.compile(rb"\r\n|\r|\n")
# What becomes of a line feed in the data.
_NEXT_LINE = b"\ndata: "
_LARGEST_RETRY = 2**31 - 1
# Bytes of UTF-8 of an event's name, as of every other name that is a caller's.
LONGEST_NAME = 512


@dataclass(frozen=True, slots=True)
class Event:
    """One item of ``send_events``.

    Args:
        data: a str, bytes of UTF-8, or anything that the JSON encoder takes.
        event_name: the browser's event type; None leaves it to ``get_stream``.
        retry: milliseconds that a browser waits before it reconnects, 0 to 2**31 - 1.
    """

    data: Any
    event_name: str | None = None
    retry: int | None = None


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """An event as ``subscribe`` yields it.

    Attributes:
        stream_id: the stream.
        id: the event id, ``<epoch>-<seq>-<tag>``, which is the cursor to resume after it; "" for a
            stream without history.
        name: the event type that a browser would dispatch; ``"message"`` without one.
        data: the text that a browser would see: JSON where JSON was sent.
        kind: ``"event"``; ``"reset"``, a gap, whose data is a JSON object of ``reason``,
            ``requested`` and ``first``; or ``"end"``, the last one.
    """

    stream_id: str
    id: str
    name: str
    data: str
    kind: Literal["event", "reset", "end"]

    def json(self) -> Any:
        """The data, parsed as JSON.

        Raises:
            json.JSONDecodeError: it is other text; a ValueError.
        """
        return json.loads(self.data)


def encode_event(
    data: object,
    event_name: str | None,
    retry: int | None,
    *,
    max_size: int,
    to_json: Callable[[Any], str | bytes],
) -> bytes:
    """The block of an event.

    Raises:
        InvalidEvent: naming the field and the rule.
    """
    content = encode_data(data, max_size=max_size, to_json=to_json)
    lines = []
    # A browser takes an empty name for none.
    if event_name is not None and validate_event_name(event_name):
        lines.append(b"event: %b\n" % event_name.encode())
    if retry is not None:
        lines.append(b"retry: %d\n" % _validate_retry(retry))
    lines.append(_data_lines(content))
    return b"".join(lines)


def encode_events(
    events: Iterable[object],
    *,
    max_size: int,
    max_count: int,
    max_total: int,
    to_json: Callable[[Any], str | bytes],
) -> list[bytes]:
    """The blocks of many events; an item is an Event, or data.

    Args:
        max_size: as for one event.
        max_count: how many they may be.
        max_total: bytes of all blocks. One always fits.

    Raises:
        InvalidEvent: naming the item, the field and the rule. What is behind it isn't looked at.
    """
    is_one = isinstance(events, str | bytes | bytearray | memoryview | Mapping)
    if is_one or not isinstance(events, Iterable):
        raise InvalidEvent("events", f"must be a list of events, not {type(events).__name__}")
    blocks: list[bytes] = []
    total = 0
    for i, item in enumerate(events):
        if i == max_count:
            raise InvalidEvent("events", f"must be at most {max_count}: send them in parts")
        data, event_name, retry = _parts(item)
        try:
            block = encode_event(data, event_name, retry, max_size=max_size, to_json=to_json)
        except InvalidEvent as exc:
            raise InvalidEvent(f"events[{i}].{exc.field}", exc.rule) from exc
        total += len(block)
        if blocks and total > max_total:
            raise InvalidEvent(
                "events", f"must be at most {max_total} bytes together: send them in parts"
            )
        blocks.append(block)
    return blocks


def _parts(item: object) -> tuple[object, str | None, int | None]:
    if isinstance(item, Event):
        return item.data, item.event_name, item.retry
    return item, None, None


def encode_end(data: object, *, max_size: int, to_json: Callable[[Any], str | bytes]) -> bytes:
    """The block of the end; data None gives it an empty JSON object, since pages parse it."""
    content = b"{}" if data is None else encode_data(data, max_size=max_size, to_json=to_json)
    return b"event: %b\n%b" % (END.encode(), _data_lines(content))


def encode_data(data: object, *, max_size: int, to_json: Callable[[Any], str | bytes]) -> bytes:
    """The data as UTF-8 whose lines end at LF: str and bytes as they are, anything else as JSON.

    Args:
        max_size: of it as it is written, see written_size.
    """
    if isinstance(data, str):
        content = _utf8(data)
    elif isinstance(data, bytes | bytearray | memoryview):
        content = _validated_utf8(bytes(data))
    else:
        content = _json(data, to_json)
    if b"\r" in content:
        content = _LINE_END.sub(b"\n", content)
    size = written_size(content)
    if size > max_size:
        lines = " (each line after the first takes 6 more)" if size > len(content) else ""
        raise InvalidEvent("data", f"must be at most {max_size} bytes of UTF-8, not {size}{lines}")
    return content


def written_size(content: bytes) -> int:
    """The bytes that the data takes: its own, and ``data: `` in front of each line but the first.

    Lines are what multiplies: a megabyte of line feeds is seven on every connection. What a frame
    holds besides (the first ``data: ``, name, retry and id) is less than 640 bytes.
    """
    return len(content) + content.count(b"\n") * len(_NEXT_LINE[1:])


def validate_event_name(event_name: object) -> str:
    """An event name that can stand in an ``event:`` line and is not one of ours."""
    if not isinstance(event_name, str):
        raise InvalidEvent("event_name", f"must be a str, not {type(event_name).__name__}")
    if _NOT_IN_A_LINE.search(event_name):
        raise InvalidEvent("event_name", "must not hold CR, LF or NUL")
    if event_name.startswith("stream-"):
        raise InvalidEvent("event_name", "must not begin with 'stream-', which is reserved")
    try:
        size = len(event_name.encode())
    except UnicodeEncodeError:
        raise InvalidEvent("event_name", "must not hold lone surrogates") from None
    if size > LONGEST_NAME:
        raise InvalidEvent(
            "event_name", f"must be at most {LONGEST_NAME} bytes of UTF-8, not {size}"
        )
    return event_name


def open_frame(event_id: str, *, trimmed: int = 0) -> bytes:
    """The rest of a response's first block, whose first line is ``retry:``.

    Args:
        event_id: the position just before the first event of the response.
        trimmed: how many events of the history that was asked for are gone.
    """
    return _own_frame(OPEN, {"trimmed": trimmed} if trimmed else {}, event_id)


def reset_frame(event_id: str, *, reason: str, requested: str, first: str | None) -> bytes:
    """How a subscriber learns of a gap.

    Args:
        event_id: the position just before the first event that follows.
        reason: why the events between can't be shown.
        requested: the cursor that the log couldn't be read from.
        first: id of the first event that follows, if there is one yet.
    """
    data = {"reason": reason, "requested": requested, "first": first}
    return _own_frame(RESET, data, event_id)


def _own_frame(name: str, data: Mapping[str, object], event_id: str) -> bytes:
    text = json.dumps(data, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\nid: {event_id}\n\n".encode()


def read_frame(stream_id: str, frame: bytes) -> ReceivedEvent:
    """What a browser would see of a frame that this package wrote."""
    event_id, name, data = "", "", []
    for line in frame.decode(errors="replace").split("\n"):
        field, _, value = line.partition(": ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            event_id = value
    kind: Literal["event", "reset", "end"]
    kind = "end" if name == END else "reset" if name == RESET else "event"
    return ReceivedEvent(stream_id, event_id, name or "message", "\n".join(data), kind)


def _data_lines(content: bytes) -> bytes:
    return b"data: %b\n" % content.replace(b"\n", _NEXT_LINE)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidEvent("data", "must not hold lone surrogates") from None


def _validated_utf8(content: bytes) -> bytes:
    try:
        content.decode()
    except UnicodeDecodeError as exc:
        raise InvalidEvent("data", f"must be UTF-8 where it is bytes: {exc.reason}") from exc
    return content


def _json(data: object, to_json: Callable[[Any], str | bytes]) -> bytes:
    if isinstance(data, Event):
        raise InvalidEvent("data", "must not be an Event; send_events() takes those")
    try:
        text = to_json(data)
        if isinstance(text, bytes):
            text = text.decode()
        if isinstance(text, str):
            check_json(text)
            return text.encode()
    # The encoder is the application's: whatever it raises means that it can't carry this value.
    except Exception as exc:
        raise InvalidEvent(
            "data", f"must be str, UTF-8 bytes or what the JSON encoder takes: {exc}"
        ) from exc
    raise InvalidEvent("data", f"came from json_encoder as {type(text).__name__}, not str or bytes")


def _validate_retry(retry: object) -> int:
    if isinstance(retry, bool) or not isinstance(retry, int):
        raise InvalidEvent("retry", f"must be an int of milliseconds, not {type(retry).__name__}")
    if not 0 <= retry <= _LARGEST_RETRY:
        raise InvalidEvent("retry", f"must be between 0 and {_LARGEST_RETRY} milliseconds")
    return retry
