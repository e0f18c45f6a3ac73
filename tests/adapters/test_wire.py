"""The Pub/Sub connection, at the moments in which little or nothing comes of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
import redis

from streamy_redis.asyncio import wire as asyncio_wire
from streamy_redis.connections import async_listener_connection, async_pool
from streamy_redis.sync import wire as sync_wire


class Connected:
    """What a wire needs of a connection: a socket with the timeout that commands have."""

    def __init__(self, connected: socket.socket) -> None:
        self._sock = connected
        connected.settimeout(2)


@pytest.fixture
def ends() -> Iterator[tuple[sync_wire.Wire, socket.socket]]:
    """A wire, and the server's end of it."""
    here, there = socket.socketpair()
    with contextlib.closing(here), contextlib.closing(there):
        wire = sync_wire.open_wire(Connected(here))  # type: ignore[arg-type]
        yield wire, there
        wire.close()


def test_half_a_reply_is_something_but_no_reply(ends: tuple[sync_wire.Wire, socket.socket]):
    wire, server = ends

    assert wire.receive(0) is None
    server.sendall(b"*1\r\n$4\r\npo")
    assert wire.receive(1) == []
    server.sendall(b"ng\r\n+OK\r\n")
    assert wire.receive(1) == [[b"pong"], b"OK"]


def test_it_is_woken(ends: tuple[sync_wire.Wire, socket.socket]):
    wire, _ = ends
    wire.wake()
    start = time.monotonic()

    assert wire.receive(5) is None
    assert time.monotonic() - start < 1


def test_what_the_socket_shows_may_be_nothing(ends: tuple[sync_wire.Wire, socket.socket]):
    """As with less than a record of TLS: nobody waits for the rest of it."""
    wire, server = ends
    server.sendall(b"+OK\r\n")
    start = time.monotonic()

    assert wire.receive(1) == [b"OK"]
    assert wire._receive_piece() is None  # type: ignore[attr-defined]
    assert time.monotonic() - start < 1


def test_the_end_is_an_error(ends: tuple[sync_wire.Wire, socket.socket]):
    wire, server = ends
    server.close()

    with pytest.raises(redis.ConnectionError):
        wire.receive(1)


def test_what_is_sent_when_the_connection_is_just_lost_is_dropped(redis_url: str):
    """Whoever comes then is subscribed when there is another one."""

    async def main() -> None:
        pool = async_pool(redis_url, connections=1, timeout=1)
        connection = async_listener_connection(pool)
        await connection.connect()
        wire = asyncio_wire.open_wire(connection, lambda replies: None)
        connection._writer.transport.abort()

        for _ in range(3):
            wire.send([b"*1\r\n$4\r\nPING\r\n"])
            await asyncio.sleep(0)
        with pytest.raises(redis.ConnectionError):
            await wire.serve()
        await connection.disconnect(nowait=True)

    asyncio.run(main())
