"""What the connections to WSGI and ASGI apps have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

__all__ = ["LEAVE_TIMEOUT", "Receiver"]

# Seconds for an app to notice that its client has left, before it is cancelled or left alone.
LEAVE_TIMEOUT = 1.0


class Receiver(Protocol):
    """Who is told what comes, on whatever thread that happens."""

    def receive_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None: ...
    def receive_body(self, chunk: bytes) -> None: ...
    def complete(self) -> None:
        """The body has ended as one that is complete; without that it was cut."""

    def finish(self, error: BaseException | None) -> None: ...
