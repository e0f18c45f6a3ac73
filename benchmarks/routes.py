"""How an event gets from the sender to each contestant: the way its own users send it."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import redis

from streamy_redis import StreamConfig, StreamManager
from streamy_redis.core.event import encode_event
from streamy_redis.core.idempotency import IdempotencyKey
from streamy_redis.keys import Keys
from streamy_redis.scripts import PUBLISH, publish_arguments

__all__ = ["Route", "RouteKind", "open_route"]

# plain: the data on a channel. frame: an HTTP chunk with the finished SSE block on a channel.
# flask-sse: its JSON on a channel. nchan: HTTP. streamy: send_event and send_events.
RouteKind = Literal["plain", "frame", "flask-sse", "nchan", "streamy"]
# A stream's name and an event's data.
Item = tuple[str, str]


class Route(Protocol):
    """Sends events in order, in one round trip where there is a way."""

    def send(self, items: Sequence[Item]) -> list[str] | None:
        """The ids of the events, where they have any."""

    def close(self) -> None: ...


def open_route(kind: RouteKind, address: str) -> Route:
    """The route of this kind to a Redis URL; for nchan to host:port of an nginx."""
    if kind == "nchan":
        return _Nchan(address)
    if kind == "streamy":
        return _Streamy(address)
    encoders: dict[str, Callable[[str], bytes]] = {
        "plain": str.encode,
        "frame": _frame,
        "flask-sse": lambda data: json.dumps({"data": data}).encode(),
    }
    return _Publish(address, encoders[kind])


def _frame(data: str) -> bytes:
    block = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(block), block)


class _Publish:
    """PUBLISH; many in a pipeline."""

    def __init__(self, url: str, encode: Callable[[str], bytes]) -> None:
        self._redis = redis.Redis.from_url(url)
        self._encode = encode

    def send(self, items: Sequence[Item]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for channel, data in items:
            pipeline.publish(channel, self._encode(data))
        pipeline.execute()

    def close(self) -> None:
        self._redis.close()


class _Streamy:
    """send_event for one event, send_events for one stream's.

    Events of many streams go through the same script in a pipeline: 6,000 round trips a second
    would cost the cores of the load client more than what is measured.
    """

    def __init__(self, url: str) -> None:
        self._config = StreamConfig()
        self._keys = Keys(self._config.prefix)
        self._streams = StreamManager(url, config=self._config)
        self._redis = redis.Redis.from_url(url)
        self._redis.script_load(PUBLISH.source)

    def send(self, items: Sequence[Item]) -> list[str]:
        names = {name for name, _ in items}
        if len(items) == 1:
            return [self._streams.send_event(*items[0])]
        if len(names) == 1:
            return self._streams.send_events(names.pop(), [data for _, data in items])
        return self._send_in_a_pipeline(items)

    def _send_in_a_pipeline(self, items: Sequence[Item]) -> list[str]:
        pipeline = self._redis.pipeline(transaction=False)
        for name, data in items:
            block = encode_event(
                data, None, None, max_size=self._config.max_event_size, to_json=json.dumps
            )
            arguments = publish_arguments(
                [block],
                IdempotencyKey.drawn(secrets.token_hex(12), None).nonces(1),
                is_end=False,
                history_length=self._config.history_length,
                ttl=self._config.history_ttl,
                search="",
                witness=None,
            )
            keys = [self._keys.log(name)]
            pipeline.execute_command(*PUBLISH.by_sha(keys, arguments))
        return [str(reply) for reply in pipeline.execute()]

    def close(self) -> None:
        self._streams.close()
        self._redis.close()


class _Nchan:
    """HTTP POSTs to nchan's publisher location, many in a pipeline."""

    def __init__(self, address: str) -> None:
        host, _, port = address.partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._buffer = b""

    def send(self, items: Sequence[Item]) -> None:
        self._socket.sendall(b"".join(self._request(*item) for item in items))
        for _ in items:
            self._read_response()

    def _request(self, channel: str, data: str) -> bytes:
        return (
            f"POST /publish/{channel} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Content-Type: text/plain\r\nContent-Length: {len(data)}\r\n\r\n{data}"
        ).encode()

    def _read_response(self) -> None:
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            raise RuntimeError(f"nchan answered {head.decode()}")
        lines = head.lower().split(b"\r\n")
        [length] = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
        while len(self._buffer) < length:
            self._receive()
        self._buffer = self._buffer[length:]

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise RuntimeError("nchan closed the connection")
        self._buffer += data

    def close(self) -> None:
        self._socket.close()
