"""The headers of a stream's response."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping

from ..exceptions import InvalidEvent

__all__ = ["STREAM_HEADERS", "retry_after", "sent_headers", "stream_headers", "validated_header"]

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    # no-transform keeps proxies from compressing, which would hold events back.
    "cache-control": "no-store, no-transform",
    # nginx buffers a response unless it is told not to.
    "x-accel-buffering": "no",
}

# RFC 9110, 5.1 and 5.5: a token, and text without control characters.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
# A stream has no length, and its connection is the server's business.
_NOT_OURS = frozenset({"connection", "content-length", "transfer-encoding"})
# What one connection says about itself, or its server about the response (RFC 9110, 7.6.1). A
# server drops what an application says of it; a stream has no length, either.
_THE_SERVERS = _NOT_OURS | {
    "date",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "server",
    "te",
    "trailers",
    "upgrade",
}
# As gunicorn has it: blanks around a value are allowed, and dropped.
_SENT_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")


def sent_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What of an application's headers stands in a head that no server writes: a server's rules.

    Raises:
        ValueError: a header that HTTP can't carry, for which a server answers 500.
    """
    sent = []
    for name, value in headers:
        # The value may be a secret.
        if not _NAME.fullmatch(name):
            raise ValueError(f"a response can't have a header with the name {name!r}")
        if not _SENT_VALUE.fullmatch(value):
            raise ValueError(f"the header {name!r} has a value that HTTP can't carry")
        if name.lower() not in _THE_SERVERS:
            sent.append((name, value.strip(" \t")))
    return sent


def stream_headers(
    headers: Mapping[str, str] | Iterable[tuple[str, str]] | None,
) -> list[tuple[str, str]]:
    """The defaults with the caller's headers over them, names in lower case.

    Raises:
        InvalidEvent: a header that HTTP can't carry, or that only the server may set.
    """
    if headers is None:
        return list(STREAM_HEADERS.items())
    given = headers.items() if isinstance(headers, Mapping) else headers
    try:
        pairs = [(name, value) for name, value in given]
    except (TypeError, ValueError):
        raise InvalidEvent("headers", "must be a mapping or pairs of names and values") from None
    own = [validated_header(name, value) for name, value in pairs]
    named = {name for name, _ in own}
    return [item for item in STREAM_HEADERS.items() if item[0] not in named] + own


def retry_after() -> tuple[str, str]:
    """Seconds, random so that the refused don't come back in one moment (RFC 9110, 10.2.3)."""
    return "retry-after", str(random.randint(1, 10))


def validated_header(name: object, value: object) -> tuple[str, str]:
    """One header, its name in lower case. Raises InvalidEvent."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidEvent("headers", f"must have names of HTTP tokens, not {name!r}")
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise InvalidEvent(
            "headers", f"must have text without control characters and blanks around it in {name!r}"
        )
    if name.lower() in _NOT_OURS:
        raise InvalidEvent("headers", f"must not set {name!r}, which the server does")
    return name.lower(), value
