"""Processes of the tests: whoever forgets one, it is stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from .web_servers import ROOT

FORGOTTEN = """
import pathlib, sys
from tests.child import Child
print(Child(["sh", "-c", "trap '' TERM; sleep 60; true"], pathlib.Path(sys.argv[1])).pid)
"""


def test_one_that_nobody_stopped_is_stopped_at_exit(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORGOTTEN, str(tmp_path / "log")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
    assert not psutil.pid_exists(int(done.stdout))
