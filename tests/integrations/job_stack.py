"""The apps of integrations/celery-jobs and rq-jobs, as a user runs them."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.browser import EventSource
from tests.child import Child
from tests.deadline import Deadline
from tests.servers import RedisServer
from tests.web_servers import ROOT, ServerKind, WebServer, http

__all__ = ["CELERY", "RQ", "JobStack", "WorkerKind"]

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
    """Two web workers and one job worker, on a Redis of their own."""

    def __init__(self, kind: WorkerKind, log: Path, **settings: object) -> None:
        self.kind = kind
        self.redis_server = RedisServer().start()
        env = {
            "STREAMY_REDIS_URL": self.redis_server.url,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            **{name: str(value) for name, value in settings.items()},
        }
        folder = ROOT / "integrations" / kind.folder
        self._start_worker = partial(
            Child, [sys.executable, *kind.command], log, env=env, cwd=folder
        )
        self.worker = self._start_worker()
        self.web = WebServer(WEB, "web:app", workers=2, env=env, directory=folder, ready="/")
        self._browsers: list[EventSource] = []

    def start(self) -> None:
        self.web.start()
        self._wait_for_worker(1)

    def restart_worker(self) -> None:
        """Start it anew, after it was killed."""
        starts = self.output().count(self.kind.is_up)
        self.worker = self._start_worker()
        self._wait_for_worker(starts + 1)

    def _wait_for_worker(self, starts: int) -> None:
        Deadline(30).until(lambda: self.output().count(self.kind.is_up) >= starts, self.output)

    def output(self) -> str:
        return self.worker.output

    def job(self, query: str = "") -> str:
        answer = http.post(f"{self.web.url}/jobs{query}").raise_for_status()
        return answer.json()["id"]

    def page(self, job_id: str) -> EventSource:
        browser = EventSource(f"{self.web.url}/jobs/{job_id}/events")
        self._browsers.append(browser)
        return browser

    def child(self) -> psutil.Process:
        """The process that runs the job."""
        return self.worker.children()[-1]

    def kill_worker(self) -> None:
        """kill -9 to all of it at once, as if its machine died; a work-horse has its own group."""
        children = self.worker.children()
        self.worker.stop()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        self.kill_worker()
        self.web.close()
        self.redis_server.close()

    def __enter__(self) -> JobStack:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
