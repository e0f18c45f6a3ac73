"""Publications: an event as Redis carries it, with its position.

A publication is its frame. What has to be known of it (position, kind) is read off its last and
first bytes; nothing is parsed or encoded again on the way to a socket.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .event import END

__all__ = ["LEAST_EPOCH", "NO_TAG", "Position", "Publication", "named_frame", "tag_of_frame"]

# The least microsecond clock of 16 digits. A smaller epoch is none of ours: XADD * makes those.
LEAST_EPOCH = 10**15

# The tag of a position that has nothing to compare: no entry of ours stands there.
NO_TAG = "0"

# epoch-seq-tag as the server writes it: no leading zeros, ASCII digits, nothing around them.
_CURSOR = re.compile(r"([1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})-(0|[0-9a-f]{8})")
# How a message ends: the id line (a bare comment without history) and the blank line; behind some
# publish.lua puts another comment, microseconds of the server's clock.
_TAIL = re.compile(
    rb"\n(?:id: ([1-9][0-9]{0,15})-([1-9][0-9]{0,15})-([0-9a-f]{8})|:)\n\n"
    rb"(?::([1-9][0-9]{15})\n)?\Z"
)
# Bytes, at least as many as a tail has.
_LONGEST_TAIL = 80
# The lines that can come first, in the order in which event.py writes them.
_FIRST_LINES = (b"data: ", b"event:", b"retry:")
_EVENT_LINE = b"event: "
_END_LINE = b"event: %b\n" % END.encode()


class Position(NamedTuple):
    """A place in a stream's log; written ``<epoch>-<seq>-<tag>``, it is an event id.

    Attributes:
        epoch: microseconds of the Redis server's clock when this life of the stream began.
        seq: 1, 2, 3 … without holes; 0 is just before the first.
        tag: 8 hex digits hashed from the publication's nonce, or NO_TAG.
    """

    epoch: int
    seq: int
    tag: str

    @classmethod
    def parse(cls, cursor: object) -> Position | None:
        """The position of a Last-Event-ID, or None if it is no event id of ours."""
        match = _CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
        return cls(int(match[1]), int(match[2]), match[3]) if match else None

    @classmethod
    def start(cls, epoch: int) -> Position:
        """Just before the first event of a life that begins at epoch or later."""
        return cls(epoch, 0, NO_TAG)

    @classmethod
    def after_loss(cls, epoch: int) -> Position:
        """Just before the first event of a life that begins because a failover lost something."""
        return cls(epoch, 1, NO_TAG)

    @property
    def is_start(self) -> bool:
        return self.seq == 0

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}-{self.tag}"

    def before(self, previous_tag: str) -> Position:
        """The position just before this one."""
        return Position(self.epoch, self.seq - 1, previous_tag)

    def follows(self, other: Position) -> bool:
        """Whether nothing can lie between other and this."""
        return self.epoch == other.epoch and self.seq == other.seq + 1


class Publication:
    """One frame on its way from Redis to every subscriber of its stream.

    Attributes:
        frame: the bytes that each subscriber gets.
        position: its place in the log; None on a stream without history.
        is_end: whether it ends the stream.
        sent_at: microseconds of the server's clock when it was sent; None where it doesn't say.
    """

    __slots__ = ("_named", "frame", "is_end", "position", "sent_at")

    def __init__(
        self, frame: bytes, position: Position | None, is_end: bool, sent_at: int | None = None
    ) -> None:
        self.frame = frame
        self.position = position
        self.is_end = is_end
        self.sent_at = sent_at
        # The frame with the name that a get_stream gave to unnamed events, by that name.
        self._named: dict[str, bytes] | None = None

    @classmethod
    def parse(cls, payload: bytes) -> Publication | None:
        """The publication in a message or log entry, or None if this is none of ours."""
        tail = _TAIL.search(payload, max(0, len(payload) - _LONGEST_TAIL))
        if tail is None or not payload.startswith(_FIRST_LINES):
            return None
        epoch, seq, tag, stamp = tail.groups()
        position = Position(int(epoch), int(seq), tag.decode()) if epoch else None
        sent_at = None
        if stamp is not None:
            payload, sent_at = payload[: tail.start(4) - 1], int(stamp)
        # One block, whole: a blank line inside would smuggle in a second one, and CR ends a line.
        if payload.find(b"\n\n") != len(payload) - 2 or b"\r" in payload:
            return None
        return cls(payload, position, payload.startswith(_END_LINE), sent_at)

    def named(self, event_name: str | None) -> bytes:
        """The frame, under that name if it was sent without one."""
        if event_name is None:
            return self.frame
        if self._named is None:
            self._named = {}
        frame = self._named.get(event_name)
        if frame is None:
            frame = self._named[event_name] = named_frame(self.frame, event_name.encode())
        return frame


def named_frame(frame: bytes, name: bytes) -> bytes:
    """The frame, with an ``event:`` line in front if it was sent without a name."""
    if frame.startswith(_EVENT_LINE):
        return frame
    return b"%b%b\n%b" % (_EVENT_LINE, name, frame)


def tag_of_frame(frame: bytes) -> str:
    """The tag at the end of a frame's id line."""
    return frame[-10:-2].decode()
