"""The wire: what Redis says on the Pub/Sub connection, read in pieces as large as they come.

One thread reads; any may wake it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from collections.abc import Iterable
from typing import Protocol

import redis

from ..replies import new_replies, replies_in

__all__ = ["Wire", "open_wire"]

# A record of TLS (16 KB) fits, so that nothing is at hand that the socket doesn't show.
_PIECE = 65536
# Seconds between two looks for commands where the connection is no socket (memory://).
_POLL_INTERVAL = 0.02


class Wire(Protocol):
    """One connected connection."""

    def receive(self, timeout: float) -> list[object] | None:
        """The replies in what has come; waits for it, for wake(), or so many seconds.

        None if nothing has come; no reply if none is whole yet.

        Raises:
            redis.ConnectionError, OSError: the connection is lost.
        """

    def send(self, pieces: Iterable[bytes]) -> None:
        """Sends packed commands.

        Raises:
            redis.ConnectionError, OSError: the connection is lost, or takes nothing for as long
                as it may wait.
        """

    def wake(self) -> None:
        """Lets receive() return, from any thread."""

    def close(self) -> None:
        """Gives up what it has made; the connection is its owner's."""


def open_wire(connection: redis.Connection) -> Wire:
    """The wire of a connected connection: its socket, for which redis-py has no public name."""
    connected = getattr(connection, "_sock", None)
    if isinstance(connected, socket.socket):
        return _SocketWire(connected)
    return _EmbeddedWire(connection)


class _SocketWire:
    """TCP, TLS or a unix socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # For a send; all that is at hand is read without waiting.
        self._timeout = connected.gettimeout()
        connected.settimeout(0)
        self._replies = new_replies()
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._selector.register(connected, selectors.EVENT_READ)

    def receive(self, timeout: float) -> list[object] | None:
        replies = None
        for key, _ in self._selector.select(timeout):
            if key.fileobj is self._socket:
                replies = self._read()
            else:
                self._wakened.recv(4096)
        return replies

    def _read(self) -> list[object]:
        piece = self._receive_piece()
        if piece is None:
            return []
        if not piece:
            raise redis.ConnectionError("Redis closed the connection")
        return replies_in(piece, self._replies)

    def _receive_piece(self) -> bytes | None:
        """What is at hand; None if that is less than a record of TLS."""
        try:
            return self._socket.recv(_PIECE)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

    def send(self, pieces: Iterable[bytes]) -> None:
        self._socket.settimeout(self._timeout)
        try:
            for piece in pieces:
                self._socket.sendall(piece)
        finally:
            self._socket.settimeout(0)

    def wake(self) -> None:
        # A full buffer or a closed end wakes as well.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def close(self) -> None:
        self._selector.close()
        self._waker.close()
        self._wakened.close()


class _EmbeddedWire:
    """memory://, which has no socket to wait on."""

    def __init__(self, connection: redis.Connection) -> None:
        self._connection = connection

    def receive(self, timeout: float) -> list[object] | None:
        if not self._connection.can_read(min(timeout, _POLL_INTERVAL)):
            return None
        replies = []
        while self._connection.can_read(0):
            try:
                replies.append(self._connection.read_response(disconnect_on_error=False))
            except redis.ResponseError as exc:
                replies.append(exc)
        return replies

    def send(self, pieces: Iterable[bytes]) -> None:
        self._connection.send_packed_command(pieces)

    def wake(self) -> None:
        # It looks soon enough.
        pass

    def close(self) -> None:
        pass
