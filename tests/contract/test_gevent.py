"""What waits, in a process where gevent has patched everything: the same list of behaviours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .conftest import GEVENT

HERE = Path(__file__).parent
# What decides there is ours or the server's, whoever waits.
THE_SAME = ["failover", "other_servers", "stream_ids", "wrong_settings"]
PATCHED = """
from gevent import monkey
monkey.patch_all()
import sys, pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.skipif(GEVENT, reason="this is that process")
def test_the_contract_holds_under_gevent(redis_url: str, tmp_path: Path):
    report = tmp_path / "report.xml"

    done = subprocess.run(
        [
            *(sys.executable, "-c", PATCHED, str(HERE), "-q", "-p", "no:cacheprovider"),
            *("--tb=short", "--maxfail=20", f"--junitxml={report}", "-m", "not refusal"),
            *(f"--ignore={HERE / f'test_{name}.py'}" for name in THE_SAME),
        ],
        env={**os.environ, "STREAMY_TEST_SHELL": "gevent", "STREAMY_TEST_REDIS_URL": redis_url},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    ran = [case for case in suite.iter("testcase") if case.find("skipped") is None]
    under_gevent = [case for case in ran if "gevent-" in case.attrib["name"]]
    assert len(under_gevent) >= 200, "the list is run, not skipped"
    assert not [case for case in ran if "threads-" in case.attrib["name"]]
