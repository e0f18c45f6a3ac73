"""memory:// belongs to one process: using it in a child warns."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings

from streamy_redis import StreamConfig, StreamManager


class Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def main(url: str, prefix: str) -> None:
    logged = Collector()
    logging.getLogger("streamy_redis").addHandler(logged)
    streams = StreamManager(url, config=StreamConfig(prefix=prefix))
    streams.send_event("room", "before")
    assert not logged.messages
    reading, writing = os.pipe()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if os.fork() == 0:
            streams.send_event("room", "in the child")
            told = [text for text in logged.messages if "memory://" in text]
            told += [str(w.message) for w in caught if "memory://" in str(w.message)]
            os.write(writing, json.dumps({"warnings": len(told)}).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        print(pipe.read())


if __name__ == "__main__":
    main(*sys.argv[1:])
