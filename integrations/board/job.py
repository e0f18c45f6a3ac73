"""The board's background job: a process without a web server that sends to the streams.

It takes job requests, which are stream ids, from the Redis list ``board:jobs`` and reports their
progress; and once a second it sends a tick to the stream ``board``, so that there is life to watch.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import redis

from streamy_redis import (
    RedisUnavailable,
    StreamConfig,
    StreamEnded,
    StreamManager,
    StreamyError,
)

STEPS = 25
STEP_INTERVAL = float(os.environ.get("BOARD_STEP_INTERVAL", "0.3"))
TICK_INTERVAL = float(os.environ.get("BOARD_TICK_INTERVAL", "1"))
ME = f"job.{os.getpid()}"

log = logging.getLogger("board.job")
streams = StreamManager(config=StreamConfig(prefix="board"))
queue = redis.Redis.from_url(os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0"))


def send(stream_id: str, event: dict[str, object], event_name: str) -> None:
    """Send, and outlast a Redis that is away; the key keeps a repeated send from doubling."""
    key = None
    while True:
        try:
            streams.send_event(stream_id, {"by": ME, **event}, event_name, idempotency_key=key)
            return
        except RedisUnavailable as exc:
            log.warning("Redis is away: %s", exc)
            key = exc.idempotency_key
            time.sleep(1)


def run(stream_id: str) -> None:
    job = secrets.token_hex(2)
    try:
        for step in range(STEPS + 1):
            send(stream_id, {"job": job, "step": step, "steps": STEPS}, "progress")
            time.sleep(STEP_INTERVAL)
    except StreamyError as exc:
        log.warning("job %s stopped: %s", job, exc)


def tick() -> None:
    number = 0
    while True:
        number += 1
        try:
            send("board", {"text": f"tick {number}"}, "tick")
        except StreamEnded:
            pass  # until someone starts the stream anew
        time.sleep(TICK_INTERVAL)


def main() -> None:
    threading.Thread(target=tick, daemon=True).start()
    with ThreadPoolExecutor(max_workers=4) as pool:
        while True:
            try:
                request = queue.blpop(["board:jobs"], timeout=2)
            except redis.RedisError as exc:
                log.warning("Redis is away: %s", exc)
                time.sleep(1)
                continue
            if request:
                pool.submit(run, request[1].decode())


if __name__ == "__main__":
    logging.basicConfig(format="%(name)s: %(message)s")
    main()
