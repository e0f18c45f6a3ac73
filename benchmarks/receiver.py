"""What one client of the load has received, and whether nothing is missing."""

from __future__ import annotations

import array
import re

from .payload import CLOSER, OPENER, PATTERN, PROBE, SEQ

__all__ = ["Receiver"]

_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Receiver:
    """Reads one response. Pure: bytes in, counts out.

    Every client counts its events and looks at the number of the last one in each read; one that
    is sampled, or whose numbers don't fit, looks at every event in full.

    Attributes:
        status: of the response, 0 until its head has come.
        is_probed: whether a probe has arrived.
        count: events received, without probes.
        faults: events out of order, repeated, damaged, or after a hole.
    """

    __slots__ = ("_carry", "_last", "count", "faults", "is_probed", "is_sampled", "status")

    def __init__(self) -> None:
        self.status = 0
        self.is_probed = False
        self.is_sampled = False
        self.count = 0
        self.faults = 0
        self._last = PROBE
        # The beginning of an event whose end has not come yet.
        self._carry = b""

    def feed(
        self, buffer: bytearray, length: int, now: float, latencies: array.array[float]
    ) -> None:
        """Takes the first `length` bytes of buffer."""
        data: bytes | bytearray = buffer
        if self._carry:
            data = self._carry + buffer[:length]
            length, self._carry = len(data), b""
        if not self.status and not self._read_head(data, length):
            return
        end = data.rfind(CLOSER, 0, length)
        if data.find(OPENER, end + 1, length) >= 0:
            self._carry = bytes(data[end + 1 : length])
        if end < 0:
            return
        events = data.count(CLOSER, 0, end + 1)
        last = int(data[end + SEQ.start : end + SEQ.stop])
        if self.is_sampled or last != self._last + events:
            self._look_at_each(bytes(data[: end + 1]), events, now, latencies)
        else:
            self._last = last
            self.count += events

    def _read_head(self, data: bytes | bytearray, length: int) -> bool:
        if data.find(b"\r\n\r\n", 0, length) < 0:
            self._carry = bytes(data[:length])
            return False
        match = _STATUS.match(data)
        self.status = int(match[1]) if match else -1
        return True

    def _look_at_each(
        self, data: bytes, events: int, now: float, latencies: array.array[float]
    ) -> None:
        found = PATTERN.findall(data)
        self.faults += events - len(found)
        for number, stamp in found:
            seq = int(number)
            if seq == PROBE:
                self.is_probed = True
                continue
            self.faults += seq != self._last + 1
            self._last = seq
            self.count += 1
            if self.is_sampled:
                latencies.append(now - float(stamp))
