"""The jobs: a Celery task that reports its progress to the stream named by its task id."""

import logging
import os
import time

import redis
from celery import Celery, signals

from streamy_redis import RedisUnavailable, StreamConfig, StreamEnded, StreamManager

URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
# Seconds until the next report: of a job that runs, and of one that waits for a worker.
LEASE = float(os.environ.get("JOB_LEASE", "15"))
WAIT = float(os.environ.get("JOB_WAIT", "600"))
STEP = float(os.environ.get("JOB_STEP", "0.3"))

app = Celery("jobs", broker=URL)
app.conf.broker_connection_retry_on_startup = True
# The prefix is the jobs' own: whoever cancels one can end no other stream of this Redis.
streams = StreamManager(URL, config=StreamConfig(prefix="jobs"))
store = redis.Redis.from_url(URL)


def report(job_id: str, percent: int, text: str, within: float = LEASE):
    """Tell the pages, and promise the next report, or the end, within so many seconds."""
    # The promise first: whoever is killed in between has made it.
    store.zadd("jobs:leases", {job_id: store.time()[0] + within})
    streams.send_event(job_id, {"percent": percent, "text": text}, "progress")


def end(job_id: str, **why: str):
    """End the job's stream, once: the first reason is the one that pages see."""
    streams.end_stream(job_id, why)
    store.zrem("jobs:leases", job_id)


def end_lost_jobs():
    """End the streams of jobs that broke their promise: their worker is gone, or hangs."""
    while True:
        try:
            for job_id in store.zrangebyscore("jobs:leases", 0, store.time()[0] - 1):
                end(job_id.decode(), reason="lost")
        except (redis.RedisError, RedisUnavailable) as exc:
            logging.warning("leases can't be read: %s", exc)
        time.sleep(1)


# StreamEnded stops a job that was cancelled, or given up for lost: that is no error.
@app.task(bind=True, throws=StreamEnded)
def work(self, steps: int = 20, fails_at: int | None = None):
    report(self.request.id, 0, "begun")
    for step in range(1, steps + 1):
        time.sleep(STEP)  # the work
        if step == fails_at:
            raise ValueError("this text stays in the worker's log")
        report(self.request.id, 100 * step // steps, f"step {step} of {steps}")
    end(self.request.id, reason="done")


@signals.task_failure.connect
def failed(task_id: str, exception: BaseException, **_: object):
    """The task raised; or the worker tells that the child that ran it was killed."""
    end(task_id, reason="failed", error=type(exception).__name__)
