"""A process that sends and subscribes, then forks three children that do the same."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from typing import Any

from streamy_redis import StreamConfig, StreamManager

CHILDREN, EVENTS = 3, 20
TOTAL = (CHILDREN + 1) * EVENTS


def main(url: str, prefix: str) -> None:
    streams = StreamManager(url, config=StreamConfig(prefix=prefix))
    with streams.subscribe("warm up") as events:
        streams.send_event("warm up", "x")
        next(iter(events))
        # Three threads hold connections and the listener while the process forks.
        pipes = [fork(streams) for _ in range(CHILDREN)]
        processes = [work(streams)]
        processes += [json.loads(pipe.read()) for pipe in pipes]
    streams.close()
    print(json.dumps({"processes": processes}))


def fork(streams: StreamManager) -> Any:
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return os.fdopen(reading)
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        pipe.write(json.dumps(work(streams)))
    os._exit(0)


def work(streams: StreamManager) -> dict[str, list[str]]:
    """Listen, wait for everybody, send, and receive what everybody sent."""
    sent: list[str] = []
    received: list[str] = []
    errors: list[str] = []

    def listen() -> None:
        try:
            for event in events:
                received.append(event.id)
                if len(received) == TOTAL:
                    return
        except Exception:
            errors.append(traceback.format_exc())

    with streams.subscribe("room", replay="all") as events:
        listener = threading.Thread(target=listen, daemon=True)
        listener.start()
        for n in range(EVENTS):
            sent.append(streams.send_event("room", str(n)))
        listener.join(15)
    return {"sent": sent, "received": received, "errors": errors}


if __name__ == "__main__":
    main(*sys.argv[1:])
