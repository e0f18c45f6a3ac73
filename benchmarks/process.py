"""Processes that the bench starts, and what Linux says of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from .cores import pin

__all__ = ["Child", "Process", "moments"]

_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Process:
    """A running process, seen from outside."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # The clock that clock_getcpuclockid(3) names: all threads, also those that have ended.
        self._clock = (~pid << 3) | 2

    def cpu_seconds(self) -> float:
        """User and system time that it has used."""
        return time.clock_gettime(self._clock)

    def pss(self) -> int:
        """Bytes of memory, shared pages divided by those that share them."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"process {self.pid} has no Pss")

    def children(self) -> list[Process]:
        """The processes that it has started, oldest first."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [Process(int(pid)) for pid in path.read_text().split()]

    def local_ports(self) -> set[int]:
        """The local ports of its open TCP connections."""
        inodes = set()
        for path in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(path.readlink().name)
        lines = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        rows = [line.split() for line in lines]
        return {
            int(row[1].rpartition(":")[2], 16) for row in rows if f"socket:[{row[9]}]" in inodes
        }

    def command(self) -> str:
        return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


class Child:
    """A process of ours in a group of its own, its output in a file. It never outlives us."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cores: Collection[int],
        cwd: Path,
        env: Mapping[str, str] | None = None,
    ) -> None:
        def prepare() -> None:
            pin(cores)
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

        self._log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=prepare,
            )
        self.process = Process(self._popen.pid)

    @property
    def is_running(self) -> bool:
        return self._popen.poll() is None

    @property
    def last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def stop(self) -> None:
        """Ends its whole group at once. May be repeated."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait(10)


def moments(seconds: float, interval: float = 0.02) -> Iterator[float]:
    """Yields the seconds that are left, every interval, until none are."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        yield left
        time.sleep(min(interval, left))
