"""gunicorn: its workers, and what they show of a request."""

from __future__ import annotations

from typing import Any

from .reach import is_made_by
from .shown import Shown

__all__ = ["Worker", "has_stopped", "is_worker", "response_limit", "shown_by"]

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


def response_limit(worker: Worker) -> int | None:
    """How many responses the worker serves at a time, where each takes a thread."""
    kind = type(worker).__name__
    if kind == "SyncWorker":
        return 1
    if kind == "ThreadWorker":
        return int(worker.cfg.threads)
    return None
