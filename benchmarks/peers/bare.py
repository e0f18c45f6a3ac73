"""The bare limit: asyncio transports on uvloop, hiredis, and nothing else.

What no server in Python on an event loop can beat: finished chunks come from Redis and are
written to every socket. No HTTP beyond a fixed head, no framework, no history, no bounds.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from typing import cast
from urllib.parse import urlsplit

import hiredis
import uvloop

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_PONG = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npong"


class Feed(asyncio.Protocol):
    """The one connection to Redis, and who listens to what."""

    def __init__(self) -> None:
        self.listeners: dict[bytes, set[asyncio.WriteTransport]] = defaultdict(set)
        self._reader = hiredis.Reader()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def listen(self, channel: bytes, listener: asyncio.WriteTransport) -> None:
        assert self._transport is not None
        if channel not in self.listeners:
            self._transport.write(b"SUBSCRIBE %b\r\n" % channel)
        self.listeners[channel].add(listener)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while reply := self._reader.gets():
            if reply[0] == b"message":
                for listener in self.listeners[reply[1]]:
                    listener.write(reply[2])


class Client(asyncio.Protocol):
    """One connection of a browser's."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._channel = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1]
        if path == b"/ping":
            self._transport.write(_PONG)
            return
        self._channel = path.rpartition(b"/")[2]
        self._transport.write(_HEAD)
        self._feed.listen(self._channel, self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._feed.listeners[self._channel].discard(self._transport)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    redis = urlsplit(os.environ["BENCH_REDIS_URL"])
    assert redis.hostname is not None
    assert redis.port is not None
    feed = Feed()
    await loop.create_connection(lambda: feed, redis.hostname, redis.port)
    server = await loop.create_server(lambda: Client(feed), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
