"""The producer: takes prompts from a Redis list, and writes each answer to a stream of its own.

It is no part of the web app, since what a web worker generates dies with it: with a deploy, a
recycled worker, a kill.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal

from model import generate
from redis import RedisError
from shared import QUEUE, store, streams

from streamy_redis import RedisUnavailable, StreamEnded

# What this generator is at; each needs a name of its own, the same after a restart.
RUNNING = f"{QUEUE}:running:{os.environ.get('GENERATOR', '1')}"
running: set[bytes] = set()  # the same, as far as this process knows

log = logging.getLogger("generator")


async def answer(item: bytes) -> None:
    answer_id, prompt = json.loads(item)
    try:
        async with streams.writer(answer_id) as writer:
            async for token in generate(prompt):
                await writer.write(token)
    except StreamEnded:
        log.info("%s was cancelled", answer_id)
    except RedisUnavailable:
        raise  # the stream couldn't be ended: stop all, and let the next start do it
    except Exception:
        log.exception("%s failed", answer_id)  # the writer has told the pages
    await store.lrem(RUNNING, 1, item)
    running.discard(item)


async def end_what_was_cut_off() -> None:
    """Say so, once, of texts that a killed generator of this name was at, and of prompts that
    Redis handed over to a connection that broke."""
    for item in set(await store.lrange(RUNNING, 0, -1)) - running:
        await streams.end_stream(json.loads(item)[0], {"reason": "lost"})
        await store.lrem(RUNNING, 1, item)


async def main() -> None:
    # Stopping ends the open streams as "cancelled".
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
    async with streams, store, asyncio.TaskGroup() as answers:
        while True:
            try:
                await end_what_was_cut_off()
                while True:
                    # Sooner than redis-py's socket_timeout.
                    if item := await store.blmove(QUEUE, RUNNING, timeout=2):
                        running.add(item)
                        answers.create_task(answer(item))
            except (RedisError, RedisUnavailable) as exc:
                log.warning("Redis is away: %s", exc)
                await asyncio.sleep(1)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(main())
