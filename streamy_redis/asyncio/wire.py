"""The wire: what Redis says on the Pub/Sub connection, heard as it comes, without a task's turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import redis
from redis.asyncio.connection import AbstractConnection

from ..replies import new_replies, replies_in

__all__ = ["Wire", "open_wire"]


class Wire(Protocol):
    """One connected connection."""

    def send(self, packed: list[bytes]) -> None:
        """Sends commands, without waiting."""

    async def serve(self) -> None:
        """Hears what comes, until the connection is lost.

        Raises:
            redis.ConnectionError, OSError: it is lost.
        """


def open_wire(connection: AbstractConnection, hear: Callable[[list[object]], None]) -> Wire:
    """The wire of a connected connection: its transport, for which redis-py has no public name.

    Args:
        hear: called with what has come. What it raises ends serve().
    """
    # uvloop's transports are of no class of asyncio's.
    transport: Any = getattr(getattr(connection, "_writer", None), "transport", None)
    if hasattr(transport, "set_protocol"):
        return _TransportWire(transport, hear)
    return _EmbeddedWire(connection, hear)


class _TransportWire(asyncio.Protocol):
    """TCP, TLS or a unix socket."""

    def __init__(self, transport: asyncio.Transport, hear: Callable[[list[object]], None]) -> None:
        self._transport = transport
        self._hear = hear
        self._replies = new_replies()
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Nothing has been said since redis-py's greeting, so its reader has nothing left.
        transport.set_protocol(self)

    def send(self, packed: list[bytes]) -> None:
        # Where the loss isn't known yet, all that was subscribed is subscribed anew.
        if not self._transport.is_closing():
            self._transport.write(b"".join(packed))

    async def serve(self) -> None:
        await self._lost

    def data_received(self, data: bytes) -> None:
        try:
            self._hear(replies_in(data, self._replies))
        except Exception as exc:
            self._lose(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc or redis.ConnectionError("Redis closed the connection"))

    def _lose(self, error: Exception) -> None:
        if not self._lost.done():
            self._lost.set_exception(error)


class _EmbeddedWire:
    """memory://, which has no transport."""

    def __init__(
        self, connection: AbstractConnection, hear: Callable[[list[object]], None]
    ) -> None:
        self._connection: Any = connection
        self._hear = hear

    def send(self, packed: list[bytes]) -> None:
        if self._connection.is_connected:
            self._connection._writer.writelines(packed)

    async def serve(self) -> None:
        while True:
            try:
                reply = await self._connection.read_response(disconnect_on_error=False)
            except redis.ResponseError as exc:
                reply = exc
            self._hear([reply])
            # What is at hand is read without ever suspending.
            await asyncio.sleep(0)
