"""What the request for a stream says of where its client is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl

from .publication import Position

__all__ = ["cursor_of"]

# What polyfills use in place of the header, which would cost them a CORS preflight.
_PARAMETER = "lastEventId"
# Several fields of one name (RFC 9110, 5.3); what stands around them, the server has taken off.
_JOINED = re.compile(r"[ \t]*,[ \t]*")


def cursor_of(last_event_id: str | None, query: str) -> Position | None:
    """Where a client is: by its Last-Event-ID, or else by its address; None for a newcomer.

    Of several the last that is an event id counts: clients put what they have seen behind what
    the page gave them, in the header (fetch joins two of one name by a comma) and in the address.

    Args:
        last_event_id: the header (HTML 9.2.4), several joined by commas (RFC 9110, 5.3).
        query: of the address, as it stands there.
    """
    return _last_of(_JOINED.split(last_event_id or "")) or _last_of(_parameters(query))


def _parameters(query: str) -> Iterator[str]:
    # An address without it, as nearly all are, isn't taken apart.
    if _PARAMETER in query:
        yield from (value for name, value in parse_qsl(query) if name == _PARAMETER)


def _last_of(cursors: Iterator[str] | list[str]) -> Position | None:
    positions = [Position.parse(cursor) for cursor in cursors]
    return next((position for position in reversed(positions) if position), None)
