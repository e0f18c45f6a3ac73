"""The jobs: an RQ job that reports its progress to the stream named by its job id."""

import logging
import os
import time

import redis
from rq import Queue, Worker
from rq.job import Job, get_current_job

from streamy_redis import RedisUnavailable, StreamConfig, StreamEnded, StreamManager

URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
# Seconds until the next report: of a job that runs, and of one that waits for a worker.
LEASE = float(os.environ.get("JOB_LEASE", "15"))
WAIT = float(os.environ.get("JOB_WAIT", "600"))
STEP = float(os.environ.get("JOB_STEP", "0.3"))

# The prefix is the jobs' own: whoever cancels one can end no other stream of this Redis.
streams = StreamManager(URL, config=StreamConfig(prefix="jobs"))
store = redis.Redis.from_url(URL)
queue = Queue(connection=store)


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


def work(steps: int = 20, fails_at: int | None = None):
    job_id = get_current_job().id
    try:
        report(job_id, 0, "begun")
        for step in range(1, steps + 1):
            time.sleep(STEP)  # the work
            if step == fails_at:
                raise ValueError("this text stays in the worker's log")
            report(job_id, 100 * step // steps, f"step {step} of {steps}")
        end(job_id, reason="done")
    except StreamEnded:
        pass  # cancelled, or given up for lost: nobody wants the rest


def failed(job: Job, connection: redis.Redis, kind: type, value: object, trace: object):
    """The job raised, or took longer than RQ's job timeout."""
    end(job.id, reason="failed", error=kind.__name__)


def killed(job: Job, *_: object):
    """The worker tells that the work-horse, its child that ran the job, was killed."""
    end(job.id, reason="failed", error="WorkHorseKilled")


if __name__ == "__main__":
    # `rq worker` does it as well; its pages learn of a killed work-horse from the lease.
    Worker([queue], connection=store, work_horse_killed_handler=killed).work()
