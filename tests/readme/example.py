"""An example on the server that the README starts it with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import gunicorn.config
import httpx

from tests.child import Child
from tests.web_servers import ServerKind, WebServer

from .document import EXAMPLES, command

__all__ = ["Example", "run_job"]


class Example(WebServer):
    """docs/examples/<app>.py, on a free port, with everything else as the README says.

    Args:
        app: the module.
        like: the module whose command starts it, where the README has none for this one.
        path: the address of a stream.
        variable: how it finds Redis.
    """

    def __init__(
        self,
        app: str,
        redis_url: str,
        *,
        like: str | None = None,
        path: str = "/events/report-7",
        variable: str = "STREAMY_REDIS_URL",
    ) -> None:
        server, *options, _ = shlex.split(command(f" {like or app}:app"))
        workers = int(options[options.index("--workers") + 1])
        super().__init__(
            _kind(server, options),
            f"{app}:app",
            workers=workers,
            # One that the machine may have set would win.
            env={"STREAMY_REDIS_URL": "", variable: redis_url},
            directory=EXAMPLES,
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
            # An example has no address but its streams: 404 is an answer, too.
            return httpx.get(self.url, timeout=2).status_code == 404
        except httpx.HTTPError:
            return False


def _kind(server: str, options: list[str]) -> ServerKind:
    if server == "uvicorn":
        arguments = [server, *options, "--port", "{port}", "{app}"]
        return ServerKind(server, arguments, is_asgi=True, is_up="Application startup complete")
    # Newer ones listen on one socket a user, which parallel tests would fight for.
    has_socket = hasattr(gunicorn.config, "ControlSocketDisable")
    own = ["--bind", "127.0.0.1:{port}", *(["--no-control-socket"] if has_socket else [])]
    arguments = [server, *options, *own, "{app}"]
    return ServerKind(server, arguments, is_asgi=False, is_up="Booting worker")


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
