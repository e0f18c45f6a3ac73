"""An event stream as a browser reads it: HTML, section 9.2.6, "Interpreting an event stream"."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import Any

__all__ = ["EventStreamParser", "StreamEvent"]

_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """An event as a page's listener gets it.

    Attributes:
        id: the last event id, with which a client that comes back goes on behind this event; ""
            where there was none yet.
        name: the event type; ``"message"`` for an event without one.
        data: the text.
        retry: milliseconds to wait before reconnecting, where the event sets them.
    """

    id: str
    name: str
    data: str
    retry: int | None = None

    def json(self) -> Any:
        """The data, read as JSON.

        Raises:
            ValueError: it isn't JSON.
        """
        return json.loads(self.data)


class EventStreamParser:
    """Bytes in, in pieces of any size; events out.

    Args:
        last_event_id: of the response before, which a browser remembers.

    Attributes:
        last_event_id: what a browser would send as Last-Event-ID now.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        # One byte order mark at the start is no part of the text.
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        # The line that hasn't ended yet, and whether the one before ended with CR: then an LF
        # that comes next belongs to that end.
        self._line = ""
        self._is_after_cr = False
        # The fields of the block that hasn't ended yet.
        self._id = ""
        self._name = ""
        self._data: list[str] = []
        self._retry: int | None = None

    @property
    def has_begun_block(self) -> bool:
        """Whether a part of an event has come, but not yet its end."""
        return bool(self._line or self._name or self._data or self._retry is not None)

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """The events that this piece completes."""
        text = self._decoder.decode(chunk)
        if self._is_after_cr and text:
            self._is_after_cr = False
            text = text.removeprefix("\n")
        if text:
            self._is_after_cr = text.endswith("\r")
        *lines, self._line = _LINE_END.split(self._line + text)
        events = [self._take(line) for line in lines]
        return [event for event in events if event is not None]

    def _take(self, line: str) -> StreamEvent | None:
        """One line; the event, if that is its end."""
        if not line:
            return self._end_block()
        # A comment is a line whose field has no name.
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value)
        return None

    def _end_block(self) -> StreamEvent | None:
        self.last_event_id = self._id
        name, self._name = self._name or "message", ""
        data, self._data = self._data, []
        retry, self._retry = self._retry, None
        if not data:
            return None
        return StreamEvent(self._id, name, "\n".join(data), retry)
