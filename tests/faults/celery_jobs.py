"""A Celery application whose jobs send: `python -m celery -A tests.faults.celery_jobs worker`."""

from __future__ import annotations

import os

import celery

from streamy_redis import StreamConfig, StreamManager

from .naive import SharedConnection

__all__ = ["app"]

app = celery.Celery("jobs", broker=os.environ["TEST_REDIS_URL"])
app.conf.update(
    task_default_queue=f"{os.environ['TEST_PREFIX']} jobs",
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
streams = StreamManager(
    os.environ["TEST_REDIS_URL"], config=StreamConfig(prefix=os.environ["TEST_PREFIX"])
)
# In the process that will fork: what it opens must not become the children's.
streams.send_event("at import", str(os.getpid()))
# Open in the process that will fork, and used by all that are forked.
connection = SharedConnection(os.environ["TEST_REDIS_URL"], os.environ["TEST_PREFIX"])


@app.task
def send(room: str, number: int) -> None:
    """Sends, and says what was returned on another stream."""
    data = f"job {number} in {os.getpid()}"
    event_id = streams.send_event(room, data)
    streams.send_event(f"{room} returned", {"id": event_id, "data": data, "pid": os.getpid()})


@app.task
def send_naively(room: str, number: int) -> None:
    """The same over a connection that its parent had opened."""
    told = connection.send_some(f"{room} naive", f"job {number}")
    streams.send_event(f"{room} naively returned", told)
