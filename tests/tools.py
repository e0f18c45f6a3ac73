"""Programs that tests need, as scripts/tools brings them; a test without one is skipped."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable

import pytest

from .web_servers import ROOT

__all__ = ["missing_of", "need", "put_on_path"]

_MISSING = re.compile(r"Skipped: (.+) is not on PATH")


def put_on_path() -> None:
    """What scripts/tools has brought, and what Debian keeps where only root's PATH leads, last."""
    folders = ["/usr/local/sbin", "/usr/sbin", "/sbin", str(ROOT / ".tools" / "bin")]
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *folders])


def need(program: str) -> str:
    """Its path; where it is missing, whoever asks is skipped."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not on PATH")
    return found


def missing_of(skipped: Iterable[pytest.TestReport]) -> list[str]:
    """The program that each of these tests would have needed."""
    reasons = [report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)]
    return [found[1] for reason in reasons if (found := _MISSING.match(reason))]
