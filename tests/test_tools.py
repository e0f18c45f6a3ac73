"""What scripts/tools says of the tests that were skipped for want of a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .web_servers import ROOT


@pytest.mark.parametrize("program", ["node", "curl", "Python 3.12", "some-program", "some program"])
def test_every_program_that_a_test_may_want_is_told_of(tmp_path: Path, program: str):
    skipped = tmp_path / "skipped"
    skipped.write_text(f"{program}\n{program}\n")

    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "tools", "--skipped", skipped],
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{program} is missing: 2 tests were skipped. To have it: ")
