"""multiprocessing with fork, after a send in the parent."""

from __future__ import annotations

import json
import multiprocessing
import sys
from typing import Any

from streamy_redis import StreamConfig, StreamManager


def send(streams: StreamManager, results: Any) -> None:
    results.put(streams.send_event("room", "from a child"))


def main(url: str, prefix: str) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    streams = StreamManager(url, config=StreamConfig(prefix=prefix))
    ids = [streams.send_event("room", "before")]
    for _ in range(3):
        process = context.Process(target=send, args=(streams, results))
        process.start()
        ids.append(results.get(timeout=15))
        process.join(15)
    ids.append(streams.send_event("room", "after"))
    print(json.dumps({"ids": ids}))


if __name__ == "__main__":
    main(*sys.argv[1:])
