"""The data of an event: 100 bytes that tell which one it is and when it was sent."""

from __future__ import annotations

import re

__all__ = ["CLOSER", "OPENER", "PATTERN", "PROBE", "SEQ", "payload"]

_SIZE = 100
# Neither letter occurs in a header, a frame's other lines or chunked framing.
OPENER, CLOSER = b"@", b"$"
PATTERN = re.compile(rb"@(\d{8}) ([\d.]{17}) x{71}\$")
# Where the number stands, counted from the closer.
SEQ = slice(-98, -90)
# The number of an event that only asks whether a client is there.
PROBE = 0


def payload(seq: int, now: float) -> str:
    """The data of the event with this number, sent now (seconds, monotonic)."""
    return f"@{seq:08d} {now:017.6f} ".ljust(_SIZE - 1, "x") + "$"
