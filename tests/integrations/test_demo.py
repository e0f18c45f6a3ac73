"""scripts/demo: one command, both boards, and nothing left after Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.browser import EventSource
from tests.child import Child
from tests.deadline import Deadline
from tests.web_servers import ROOT, http

SCRIPT = ROOT / "scripts" / "demo"


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Child]:
    env = dict.fromkeys(("STREAMY_REDIS_URL", "REDIS_URL"), "")
    child = Child([sys.executable, str(SCRIPT)], tmp_path / "log", env={**env, "PYTHONPATH": ""})
    yield child
    child.stop(grace=5)


def boards(demo: Child) -> list[str]:
    Deadline(60).until(
        lambda: "ready" in demo.output or not demo.running, lambda: demo.output, every=0.05
    )
    urls = re.findall(r"http://127\.0\.0\.1:\d+/", demo.output)
    assert len(urls) == 2, demo.output
    return urls


def test_serves_both_boards_and_stops_everything_on_ctrl_c(demo: Child):
    flask, starlette = boards(demo)
    pids = [process.pid for process in demo.children()]
    assert len(pids) >= 7, "a server, two masters with two workers each, and a job"

    with EventSource(f"{flask}stream/1") as here, EventSource(f"{starlette}stream/1") as there:
        for browser in (here.wait_open(), there.wait_open()):
            # The job's ticks, and what somebody sends.
            browser.wait_for(lambda b: b.of_type("tick"), 10, "a tick")
        sent = http.post(f"{flask}send", content="hello").json()["id"]
        for browser in (here, there):
            browser.wait_for(lambda b: sent in [e.last_event_id for e in b.messages], 5, "hello")

    os.kill(demo.pid, signal.SIGINT)

    assert demo.wait(10) == 0
    Deadline(5).until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "all are gone")


def test_starts_again_what_was_killed(demo: Child):
    boards(demo)
    job = next(p for p in demo.children() if "job.py" in " ".join(p.cmdline()))

    # The demo gives up on what dies within three seconds of its start.
    Deadline(3.2).stays(lambda: demo.running, every=0.2)
    job.kill()

    Deadline(10).until(lambda: "was started again" in demo.output, lambda: demo.output)
