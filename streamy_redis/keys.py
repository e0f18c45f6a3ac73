"""Every name in Redis: a stream's log and its channel."""

from __future__ import annotations

import unicodedata

from .core.event import LONGEST_NAME
from .exceptions import InvalidEvent

__all__ = ["Keys", "validate_idempotency_key", "validate_stream_id"]

# The hash tag of a cluster key ends at the first closing brace, so braces in the id are encoded.
_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class Keys:
    """The keys of the streams under one prefix. Immutable, so safe to share."""

    __slots__ = ("_prefix",)

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def channel(self, stream_id: str) -> str:
        """The Pub/Sub channel that carries each publication as it happens."""
        return f"{self._prefix}:{{{stream_id.translate(_ESCAPES)}}}"

    def log(self, stream_id: str) -> str:
        """The Redis Stream that holds the history; publish.lua takes the channel's name off it."""
        return self.channel(stream_id) + ":log"


def validate_stream_id(stream_id: object) -> str:
    """The stream id as it was given.

    Raises:
        InvalidEvent: it is no non-empty str of at most 512 bytes of UTF-8 without control
            characters and lone surrogates.
    """
    return _validate_name("stream_id", stream_id)


def validate_idempotency_key(key: object) -> str | None:
    """The key as it was given, under the rule of stream ids; None stays None."""
    return None if key is None else _validate_name("idempotency_key", key)


def _validate_name(field: str, value: object) -> str:
    """A non-empty str of at most 512 bytes of UTF-8 without control characters."""
    if not isinstance(value, str) or not value:
        raise InvalidEvent(field, "must be a non-empty str")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidEvent(field, "must not hold lone surrogates") from None
    if size > LONGEST_NAME:
        raise InvalidEvent(field, f"must be at most {LONGEST_NAME} bytes of UTF-8, not {size}")
    # Nearly every id is plain ASCII: isprintable() decides without looking each letter up.
    if not value.isprintable() and any(unicodedata.category(c) == "Cc" for c in value):
        raise InvalidEvent(field, "must not hold control characters")
    return value
