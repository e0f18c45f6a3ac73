"""An example on the server that a page starts it with, and the lines of its shells."""

from __future__ import annotations

import multiprocessing
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gunicorn.config
import httpx

from tests.child import Child
from tests.tools import need
from tests.web_servers import ServerKind, WebServer

from .document import EXAMPLES, ROOT, command

__all__ = ["Example", "Shell", "run_job", "shows"]

# Of each server: what tells it its address, and what each worker says when it is up.
_SERVERS = {
    "gunicorn": (["--bind", "127.0.0.1:{port}"], "Booting worker"),
    "uvicorn": (["--port", "{port}"], "Application startup complete"),
    "granian": (["--port", "{port}"], "Started worker-"),
    "hypercorn": (["--bind", "127.0.0.1:{port}"], "Running on"),
}


class Example(WebServer):
    """docs/examples/<app>.py, on a free port, with everything else as a page says.

    Args:
        app: the module.
        like: the module whose command starts it, where the README has none for this one.
        line: the command, where it isn't one of the README.
        path: the address of a stream.
        variable: how it finds Redis.
        directory: where it is started.
    """

    def __init__(
        self,
        app: str,
        redis_url: str,
        *,
        like: str | None = None,
        line: str | None = None,
        path: str = "/events/report-7",
        variable: str = "STREAMY_REDIS_URL",
        directory: Path = EXAMPLES,
    ) -> None:
        server, *options, _ = shlex.split(line or command(f" {like or app}:app"))
        # A line that doesn't say leaves it to gunicorn.conf.py.
        told = options[options.index("--workers") + 1] if "--workers" in options else None
        workers = int(told or multiprocessing.cpu_count())
        super().__init__(
            _kind(server, options),
            f"{app}:app",
            workers=workers,
            # One that the machine may have set would win.
            env={"STREAMY_REDIS_URL": "", variable: redis_url},
            directory=directory,
        )
        self._path = path

    @property
    def stream(self) -> str:
        return self.url + self._path

    def answers(self) -> bool:
        assert self.child.running, self.output[-4000:]
        if self.output.count(self.kind.is_up) < self.worker_count:
            return False
        try:
            # An example may have no address but its streams: 404 is an answer, too.
            return httpx.get(self.url, timeout=2).status_code < 500
        except httpx.HTTPError:
            return False


def _kind(server: str, options: list[str]) -> ServerKind:
    address, is_up = _SERVERS[server]
    # Newer ones listen on one socket a user, which parallel tests would fight for.
    has_socket = server == "gunicorn" and hasattr(gunicorn.config, "ControlSocketDisable")
    own = [*address, *(["--no-control-socket"] if has_socket else [])]
    is_asgi = server != "gunicorn"
    return ServerKind(server, [server, *options, *own, "{app}"], is_asgi=is_asgi, is_up=is_up)


class Shell:
    """Runs lines as a reader would, one after another, in one folder.

    Args:
        site: who answers where the page says port 8000.
    """

    def __init__(self, folder: Path, redis_url: str, site: WebServer | None = None) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._site = site
        self._children: list[Child] = []

    @property
    def _env(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {"PATH": path, "STREAMY_REDIS_URL": self._redis_url, "PYTHONPATH": str(ROOT)}

    def _here(self, line: str) -> list[str]:
        """The line with the addresses of this test."""
        for program in ("redis-cli", "curl", "pgrep"):
            if f"{program} " in line:
                need(program)
        if self._site is not None:
            line = line.replace("http://127.0.0.1:8000", self._site.url)
        return ["bash", "-c", line.replace("redis-cli ", f"redis-cli -u {self._redis_url} ")]

    def run(self, line: str, *, status: int = 0, stdin: str = "") -> str:
        """What it prints, when it has ended with this exit status."""
        done = subprocess.run(
            self._here(line),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self._folder,
            env={**os.environ, **self._env},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def start(self, line: str) -> Child:
        """For a line that doesn't end by itself."""
        log = self._folder / f"{len(self._children)}.log"
        self._children.append(Child(self._here(line), log, env=self._env, cwd=self._folder))
        return self._children[-1]

    def close(self) -> None:
        for child in self._children:
            child.stop()

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def run_job(redis_url: str, log: Path) -> None:
    """docs/examples/job.py, to its end."""
    job = Child(
        [sys.executable, "-W", "error", "job.py"],
        log,
        env={"STREAMY_REDIS_URL": redis_url, "PYTHONPATH": str(EXAMPLES.parent.parent)},
        cwd=EXAMPLES,
    )
    try:
        assert job.wait(20) == 0, job.output
    finally:
        job.stop()
    assert job.output == ""


def shows(page: Any, percent: int) -> None:
    """Waits until the page's progress bar is there."""
    page.wait_for_function("percent => bar.value === percent", arg=percent, timeout=20_000)
