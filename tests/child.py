"""Processes that the tests start, and their folders: neither outlives the tests."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import fcntl
import functools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

__all__ = ["Child", "new_folder", "remove_left_folders"]

_PREFIX = "streamy-tests-"

# Held until they are stopped, whoever has forgotten them.
_alive: set[Child] = set()
# setpriv's signal is sent when the thread that started the process ends: so one that never does.
_starter = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="child starter")
_starter.submit(int).result()


class Child:
    """One process in a session of its own, its output in a file.

    The process group is killed when `stop()` is called, when pytest exits, and, where setpriv is
    installed, when pytest itself is killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | str | None = None,
    ) -> None:
        self.log = log
        setpriv = shutil.which("setpriv")
        guard = [setpriv, "--pdeathsig", "TERM"] if setpriv else []
        with log.open("ab") as output:
            self._process = _starter.submit(
                subprocess.Popen,
                [*guard, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            ).result()
        self.pid = self._process.pid
        _alive.add(self)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def children(self) -> list[psutil.Process]:
        """The processes below this one, oldest first."""
        try:
            return sorted(
                psutil.Process(self.pid).children(recursive=True), key=lambda p: p.create_time()
            )
        except psutil.NoSuchProcess:
            return []

    def signal(self, number: int) -> None:
        """Send a signal to this process, not to its children."""
        if self.running:
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """The exit status; AssertionError when it still runs at the deadline."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"process {self.pid} still runs after {timeout} s\n{self.output[-4000:]}"
            ) from None

    def stop(self, *, grace: float = 0.0) -> None:
        """TERM, then after `grace` seconds KILL, for the whole group. May be repeated."""
        if grace and self.running:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)
        _alive.discard(self)


def new_folder(name: str) -> Path:
    """An empty folder, which is removed when this process exits.

    Where it had no time to, that is done by remove_left_folders().
    """
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=_own_folder()))


@functools.cache
def _own_folder() -> Path:
    remove_left_folders()
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}"))
    # Held as long as this process lives; nobody sees the folder before.
    fcntl.flock(os.open(made, os.O_RDONLY), fcntl.LOCK_EX)
    return made.rename(made.with_name(made.name.removeprefix(".")))


def remove_left_folders() -> None:
    """Those of processes that are gone: killed, or workers of an interrupted pytest-xdist."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
    finally:
        os.close(held)


_pid = os.getpid()


@atexit.register
def _clean_up() -> None:
    # A process forked off by a test has copies of all of it.
    if os.getpid() != _pid:
        return
    for child in list(_alive):
        child.stop()
    if _own_folder.cache_info().currsize:
        shutil.rmtree(_own_folder(), ignore_errors=True)
