"""A process that forks while it writes; the child tries to go on with its parent's writer."""

from __future__ import annotations

import json
import os
import sys

from streamy_redis import StreamConfig, StreamManager


def main(url: str, prefix: str) -> None:
    with StreamManager(url, config=StreamConfig(prefix=prefix)) as streams:
        with streams.writer("room", 0.02) as writer:
            writer.write("the ")
            while not streams.info("room").exists:
                pass
            # The thread that sends in time is there, and is not in the child.
            reading, writing = os.pipe()
            if not os.fork():
                os.write(writing, child(streams, writer).encode())
                os._exit(0)
            os.wait()
            writer.write("parent's")
        with (
            streams.subscribe("room", replay="all") as parents,
            streams.subscribe("child's room", replay="all") as childs,
        ):
            told = {
                "error": os.read(reading, 1000).decode(),
                "parent": [event.data for event in parents],
                "child": [event.data for event in childs],
            }
    print(json.dumps(told))


def child(streams: StreamManager, inherited: object) -> str:
    with streams.writer("child's room", 0.02) as own:
        own.write("the child's")
        while not streams.info("child's room").exists:
            pass
    try:
        with inherited as writer:  # type: ignore[attr-defined]
            writer.write("nobody's")
    except RuntimeError as error:
        return str(error)
    return "none"


if __name__ == "__main__":
    main(*sys.argv[1:])
