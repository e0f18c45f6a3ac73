"""Replies: RESP2 as it comes off a socket, in pieces of any size.

redis-py makes the connections; its own reading looks at the socket several times for each
message, which a listener that hears thousands a second would do for nothing.
"""

from __future__ import annotations

from typing import Protocol

import redis

try:
    from hiredis import Reader
except ImportError:  # the extra "hiredis"
    Reader = None  # type: ignore[assignment, misc, unused-ignore]

__all__ = ["PythonReplies", "Replies", "new_replies", "replies_in"]


class Replies(Protocol):
    """Turns bytes into replies: bytes, int, None, a list of them, or a redis.ResponseError.

    Raises:
        redis.InvalidResponse: by gets(), what came is no RESP2.
    """

    def feed(self, data: bytes, /) -> object: ...
    def gets(self) -> object:
        """The next reply; False if it hasn't come whole."""


def new_replies() -> Replies:
    """hiredis' reader, or else the one below."""
    if Reader is None:
        return PythonReplies()
    return Reader(replyError=redis.ResponseError, protocolError=redis.InvalidResponse)


def replies_in(piece: bytes, replies: Replies) -> list[object]:
    """The replies that are whole with this piece, after those before it."""
    replies.feed(piece)
    gets = replies.gets
    whole = []
    while (reply := gets()) is not False:
        whole.append(reply)
    return whole


class PythonReplies:
    """What hiredis does, for those who don't have it."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def gets(self) -> object:
        self._at = 0
        try:
            reply = self._read()
        except EOFError:
            return False
        except ValueError as exc:
            raise redis.InvalidResponse(f"no RESP2: {exc}") from exc
        del self._buffer[: self._at]
        return reply

    def _read(self) -> object:
        line = self._take(self._buffer.find(b"\r\n", self._at))
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._take(self._at + size)
        if kind == b"*":
            count = int(rest)
            return None if count < 0 else [self._read() for _ in range(count)]
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return redis.ResponseError(rest.decode(errors="replace"))
        raise ValueError(f"a reply that begins with {kind!r}")

    def _take(self, end: int) -> bytes:
        """The bytes up to end, which CRLF follows."""
        if end < 0 or len(self._buffer) < end + 2:
            raise EOFError
        taken = bytes(self._buffer[self._at : end])
        self._at = end + 2
        return taken
