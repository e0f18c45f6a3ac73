"""What a server shows of one request, once it was reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Shown", "Transport"]


class Transport(Protocol):
    """What is used of an asyncio.Transport; uvloop's are of no class of asyncio's."""

    def abort(self) -> None: ...
    def close(self) -> None: ...
    def get_extra_info(self, name: str) -> Any: ...


@dataclass(frozen=True, slots=True)
class Shown:
    """A request as its server holds it.

    Attributes:
        headers: the very pairs that the scope began with.
        transport: its connection's.
        server: what knows whether the server stops: gunicorn's worker, uvicorn's state.
    """

    headers: Sequence[tuple[bytes, bytes]]
    transport: Transport
    server: object
