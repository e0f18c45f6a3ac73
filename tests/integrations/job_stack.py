"""The apps of integrations/celery-jobs and rq-jobs, as a user runs them."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.browser import EventSource
from tests.child import Child
from tests.deadline import Deadline
from tests.servers import RedisServer
from tests.web_servers import ROOT, ServerKind, WebServer, http

__all__ = ["CELERY", "RQ", "JobStack", "WorkerKind", "kill_all"]

WEB = ServerKind(
    "gunicorn",
    ["gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "{workers}", "--threads", "4", "{app}"],
    is_asgi=False,
    is_up="Booting worker",
)


@dataclass(frozen=True)
class WorkerKind:
    """How the worker of a folder in integrations/ is started, and what it says when it is up."""

    folder: str
    command: list[str]
    is_up: str
    # What the end says when the child that runs the job was killed.
    killed: str


CELERY = WorkerKind(
    "celery-jobs",
    ["-m", "celery", "-A", "jobs", "worker", "--concurrency", "1", "--loglevel", "INFO"],
    is_up=" ready.",
    killed="WorkerLostError",
)
RQ = WorkerKind("rq-jobs", ["jobs.py"], is_up="Listening on", killed="WorkHorseKilled")


class JobStack:
    """Two web workers, and one job worker unless there is to be none, on a Redis of their own."""

    def __init__(self, kind: WorkerKind, redis_server: RedisServer, log: Path) -> None:
        self.kind = kind
        self.directory = ROOT / "integrations" / kind.folder
        self._redis_server = redis_server
        self._log = log
        self.worker: Child | None = None
        self._browsers: list[EventSource] = []

    def start(self, *, has_worker: bool = True, **settings: object) -> JobStack:
        env = {
            "STREAMY_REDIS_URL": self._redis_server.url,
            "JOB_STEP": "0.1",
            **{name: str(value) for name, value in settings.items()},
        }
        self.web = WebServer(
            WEB, "web:app", workers=2, env=env, directory=self.directory, ready="/"
        ).start()
        if has_worker:
            worker = self.worker = Child(
                [sys.executable, *self.kind.command],
                self._log,
                env={**env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
                cwd=self.directory,
            )
            Deadline(30).until(lambda: self.kind.is_up in worker.output, lambda: worker.output)
        return self

    def job(self, query: str = "") -> str:
        answer = http.post(f"{self.web.url}/jobs{query}").raise_for_status()
        return answer.json()["id"]

    def page(self, job_id: str) -> EventSource:
        browser = EventSource(f"{self.web.url}/jobs/{job_id}/events")
        self._browsers.append(browser)
        return browser

    def child(self) -> psutil.Process:
        """The process that runs the job."""
        assert self.worker is not None
        return self.worker.children()[-1]

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        if self.worker is not None:
            kill_all(self.worker)
        self.web.close()


def kill_all(worker: Child) -> None:
    """kill -9 to all of it at once, as when its machine dies; a work-horse has its own group."""
    children = worker.children()
    worker.stop()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
