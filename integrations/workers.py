"""The workers of one server, which the board may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def is_colleague(pid: int, master: int | None) -> bool:
    """Whether a process is this worker, or another one of its master.

    Args:
        master: the process that starts this server's workers; None if there is but this one.
    """
    return pid == os.getpid() or (master is not None and _parent_of(pid) == master)


def _parent_of(pid: int) -> int | None:
    try:
        if sys.platform == "linux":
            # Behind the process's name, which may hold anything.
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(pid)]))
    except (OSError, subprocess.CalledProcessError):
        return None  # it is gone
