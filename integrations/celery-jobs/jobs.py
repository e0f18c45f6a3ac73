"""The jobs: a Celery task that reports its progress to the stream named by its task id."""

from __future__ import annotations

import os
import time

import redis
from celery import Celery, signals

from streamy_redis import StreamEnded, StreamManager

URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
# Seconds until the next report: of a job that runs, and of one that waits for a worker.
LEASE = float(os.environ.get("JOB_LEASE", "15"))
WAIT = float(os.environ.get("JOB_WAIT", "600"))
STEP = float(os.environ.get("JOB_STEP", "0.3"))

app = Celery("jobs", broker=URL)
app.conf.broker_connection_retry_on_startup = True
streams = StreamManager(URL)
store = redis.Redis.from_url(URL)


def report(job_id: str, percent: int, text: str, *, within: float = LEASE) -> None:
    """Tell the pages, and promise the next report, or the end, within so many seconds."""
    # The promise first: whoever is killed in between has made it.
    store.zadd("jobs:leases", {job_id: store.time()[0] + within})
    streams.send_event(job_id, {"percent": percent, "text": text}, "progress")


def end(job_id: str, **why: str) -> None:
    """End the job's stream, once: the first reason is the one that pages see."""
    streams.end_stream(job_id, why)
    store.zrem("jobs:leases", job_id)


def end_lost_jobs() -> None:
    """End the streams of jobs that broke their promise: their worker is gone, or hangs."""
    for job_id in store.zrangebyscore("jobs:leases", 0, store.time()[0] - 1):
        end(job_id.decode(), reason="lost")


@app.task(bind=True)
def work(self, steps: int = 20, fails_at: int | None = None) -> None:
    job_id = self.request.id
    try:
        for step in range(1, steps + 1):
            time.sleep(STEP)  # the work
            if step == fails_at:
                raise ValueError("this text stays in the worker's log")
            report(job_id, 100 * step // steps, f"step {step} of {steps}")
        end(job_id, reason="done")
    except StreamEnded:
        pass  # cancelled, or given up for lost: nobody wants the rest


@signals.task_failure.connect
def failed(task_id: str, exception: BaseException, **_: object) -> None:
    """The task raised; or the worker tells that the child that ran it was killed."""
    end(task_id, reason="failed", error=type(exception).__name__)
