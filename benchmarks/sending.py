"""Sending: how many events one process gets rid of in a second."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import redis
from flask import Flask
from flask_sse import sse

from streamy_redis import AsyncStreamManager, StreamManager

from .cores import pin, rest_cores, server_cores
from .figures import Row
from .payload import payload

__all__ = ["SENDERS", "measure_sending"]

_ROOM = "room"
_BATCH = 100
_THREADS = 8
_DATA = payload(1, 0.0)
# Sends for so many seconds, and says how many events it were.
_Send = Callable[[str, float], int]


def measure_sending(name: str, url: str, seconds: float) -> Row:
    """Sends from this process, on the server's core."""
    with _on_the_server_core():
        SENDERS[name][1](url, 0.1)
        begun_at, cpu = time.monotonic(), time.process_time()
        events = SENDERS[name][1](url, seconds)
        elapsed, cpu = time.monotonic() - begun_at, time.process_time() - cpu
    figures = {"sends_per_second": events / elapsed, "cpu_per_send": cpu / events}
    return Row("sending", name, figures)


@contextmanager
def _on_the_server_core() -> Iterator[None]:
    pin(server_cores())
    try:
        yield
    finally:
        pin(rest_cores())


def _repeat(send: Callable[[], object], seconds: float) -> int:
    deadline = time.monotonic() + seconds
    count = 0
    while time.monotonic() < deadline:
        send()
        count += 1
    return count


def _flask_sse(url: str, seconds: float) -> int:
    app = Flask(__name__)
    app.config["REDIS_URL"] = url
    with app.app_context():
        return _repeat(lambda: sse.publish(_DATA, channel=_ROOM), seconds)


def _publish(url: str, seconds: float) -> int:
    with redis.Redis.from_url(url) as client:
        return _repeat(lambda: client.publish(_ROOM, _DATA), seconds)


def _one_by_one(url: str, seconds: float) -> int:
    with StreamManager(url) as streams:
        return _repeat(lambda: streams.send_event(_ROOM, _DATA), seconds)


def _one_by_one_in_asyncio(url: str, seconds: float) -> int:
    async def send() -> int:
        deadline = time.monotonic() + seconds
        count = 0
        async with AsyncStreamManager(url) as streams:
            while time.monotonic() < deadline:
                await streams.send_event(_ROOM, _DATA)
                count += 1
        return count

    return asyncio.run(send())


def _send_events(url: str, seconds: float) -> int:
    events = [_DATA] * _BATCH
    with StreamManager(url) as streams:
        return _BATCH * _repeat(lambda: streams.send_events(_ROOM, events), seconds)


def _threads(url: str, seconds: float) -> int:
    counts: list[int] = []
    with StreamManager(url) as streams:

        def send() -> None:
            counts.append(_repeat(lambda: streams.send_event(_ROOM, _DATA), seconds))

        threads = [threading.Thread(target=send) for _ in range(_THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return sum(counts)


SENDERS: dict[str, tuple[str, _Send]] = {
    "flask-sse": ("flask-sse, one by one", _flask_sse),
    "redis-py": ("redis-py's PUBLISH, one by one", _publish),
    "ours": ("send_event, one by one", _one_by_one),
    "ours-asyncio": ("send_event, one by one, asyncio", _one_by_one_in_asyncio),
    "ours-events": (f"send_events, {_BATCH} each", _send_events),
    "ours-threads": (f"send_event, {_THREADS} threads", _threads),
}
