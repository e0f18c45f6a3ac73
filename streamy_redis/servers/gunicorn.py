"""gunicorn: its workers, and what they show of a request."""

from __future__ import annotations

from typing import Any

from .reach import is_made_by, objects_behind
from .shown import Shown

__all__ = [
    "Worker",
    "close_behind",
    "has_stopped",
    "is_worker",
    "limit_connections",
    "response_limit",
    "shown_by",
]

# gunicorn.workers.base.Worker.
Worker = Any


def shown_by(each: Any) -> Shown | None:
    """The request, if this is what receives the body of one, in the asgi worker."""
    # Its settings have a protocol as well.
    names = ("protocol", "request")
    if not is_made_by("gunicorn", each) or not all(hasattr(each, name) for name in names):
        return None
    headers = getattr(each.request, "headers_bytes", ())
    return Shown(headers, each.protocol.transport, each.protocol.worker)


def is_worker(candidate: object) -> bool:
    return is_made_by("gunicorn", candidate) and hasattr(candidate, "alive")


def has_stopped(worker: Worker) -> bool:
    """Whether its master, or max_requests, has asked it to end."""
    return worker.alive is False


def limit_connections(worker: Worker, most: int) -> None:
    """Lets a worker of threads accept no more than that at a time, streams not counted.

    It ends, with all that it serves, when it accepts one for which there is no descriptor. Workers
    of other kinds wait then, or accept few at a time.
    """
    if hasattr(worker, "max_keepalived"):
        worker.worker_connections = min(worker.worker_connections, most)
        # Those that are only kept must leave room for others.
        worker.max_keepalived = min(worker.max_keepalived, max(most - worker.cfg.threads, 0))


def close_behind(start_response: object) -> None:
    """Lets the worker say that it closes the connection behind this response, and do it."""
    for each in objects_behind(start_response):
        if is_made_by("gunicorn", each) and hasattr(each, "force_close"):
            each.force_close()
            break


def response_limit(worker: Worker) -> int | None:
    """How many responses the worker serves at a time, where each takes a thread."""
    kind = type(worker).__name__
    if kind == "SyncWorker":
        return 1
    if kind == "ThreadWorker":
        return int(worker.cfg.threads)
    return None
