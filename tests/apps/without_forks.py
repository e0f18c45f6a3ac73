"""A platform without forks, as Windows is: what only Unix has is taken away before the import."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import select
import signal
import sys

for module, names in {
    os: ["fork", "forkpty", "register_at_fork", "wait3", "wait4"],
    select: ["poll", "epoll"],
    signal: ["SIGKILL", "SIGHUP", "SIGUSR1", "SIGALRM", "setitimer"],
    fcntl: ["fcntl", "flock"],
}.items():
    for name in names:
        delattr(module, name)
sys.modules["fcntl"] = None  # type: ignore[assignment]

from flask import Flask  # noqa: E402
from werkzeug.test import Client  # noqa: E402

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager  # noqa: E402
from streamy_redis.cli.output import watch_output  # noqa: E402


def with_threads(streams: StreamManager) -> list[str]:
    with streams.subscribe("room") as events:
        streams.send_event("room", "to threads")
        return [next(events).data]


def with_flask(streams: StreamManager) -> list[str]:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: streams.get_stream("page"))
    with Client(app).get("/", buffered=False) as response:
        pieces = response.iter_encoded()
        shown = [next(pieces)]
        streams.send_event("page", "to a page")
        while b"to a page" not in shown[-1]:
            shown.append(next(pieces))
    return [line.removeprefix("data: ") for line in shown[-1].decode().splitlines() if "to" in line]


async def with_asyncio(url: str, config: StreamConfig) -> list[str]:
    async with AsyncStreamManager(url, config=config) as streams, streams.subscribe("b") as events:
        await streams.send_event("b", "to tasks")
        return [(await anext(events)).data]


def main(url: str, prefix: str) -> None:
    assert not watch_output(lambda: None).is_set()
    config = StreamConfig(prefix=prefix)
    with StreamManager(url, config=config) as streams:
        told = with_threads(streams) + with_flask(streams)
    print(json.dumps({"heard": told + asyncio.run(with_asyncio(url, config))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
