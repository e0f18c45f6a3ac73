"""A process that uses an AsyncStreamManager, then forks three children that do the same."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from streamy_redis import AsyncStreamManager, StreamConfig

CHILDREN, EVENTS = 3, 20
TOTAL = (CHILDREN + 1) * EVENTS


def main(url: str, prefix: str) -> None:
    streams = AsyncStreamManager(url, config=StreamConfig(prefix=prefix))
    # As with a preloading server: used at import, without aclose, forked, then used by everybody.
    asyncio.run(streams.send_event("warm up", "x"))
    pipes = [fork(streams) for _ in range(CHILDREN)]
    processes = [asyncio.run(work(streams))]
    processes += [json.loads(pipe.read()) for pipe in pipes]
    print(json.dumps({"processes": processes}))


def fork(streams: AsyncStreamManager) -> Any:
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return os.fdopen(reading)
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        pipe.write(json.dumps(asyncio.run(work(streams))))
    os._exit(0)


async def work(streams: AsyncStreamManager) -> dict[str, list[str]]:
    sent: list[str] = []
    received: list[str] = []
    errors: list[str] = []
    try:
        async with asyncio.timeout(15), streams.subscribe("room", replay="all") as events:
            for n in range(EVENTS):
                sent.append(await streams.send_event("room", str(n)))
            async for event in events:
                received.append(event.id)
                if len(received) == TOTAL:
                    break
    except Exception as error:
        errors.append(repr(error))
    await streams.aclose()
    return {"sent": sent, "received": received, "errors": errors}


if __name__ == "__main__":
    main(*sys.argv[1:])
