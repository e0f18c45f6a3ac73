"""What the doctor sends to a stream, to see it arrive."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from time import monotonic

from ..sync.manager import StreamManager
from .response import EndpointResponse

__all__ = ["EVENT_NAME", "Sender"]

# Pages get events only by the names that they listen to: nobody listens to this one.
EVENT_NAME = "streamy-redis-doctor"

# Seconds until what has to be repeated is sent again.
_REPEAT_INTERVAL = 0.3
# What is sent behind an event that doesn't arrive: more than proxies keep back (nginx: a buffer of
# 4 or 8 KiB, and zlib's window), in pieces, with seconds in between for them to come.
_PADDING = 8 * 1024
_MOST_PADDING = 64 * 1024
_PADDING_PAUSE = 0.2


class Sender:
    """Sends to the stream that the endpoint serves; remembers how much."""

    def __init__(self, streams: StreamManager, stream_id: str) -> None:
        self._streams = streams
        self.stream_id = stream_id
        self.padding = 0

    def send(self, text: str) -> None:
        self._streams.send_event(self.stream_id, text, EVENT_NAME)

    def repeat(self, marker: str, response: EndpointResponse, seconds: float) -> bool:
        """Sends this until it has come; whether it came in time."""
        begin = monotonic()
        while True:
            self.send(marker)
            if response.wait(lambda: marker in response.text, _REPEAT_INTERVAL):
                return True
            if response.is_over or monotonic() - begin > seconds:
                return False

    def push(self, response: EndpointResponse, has_come: Callable[[], object]) -> bool:
        """Sends more and more behind what hasn't come; whether it came then."""
        while self.padding < _MOST_PADDING and not response.is_over:
            # Random: it has to stay that large when somebody compresses it.
            self.send(secrets.token_urlsafe(_PADDING * 3 // 4))
            self.padding += _PADDING
            if response.wait(has_come, _PADDING_PAUSE):
                return True
        return False

    @property
    def pushed(self) -> str:
        return f"{self.padding // 1024} KiB of events"
