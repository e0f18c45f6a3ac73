"""After a fork, each process has its own connections and its own listener."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from .conftest import GEVENT

pytestmark = pytest.mark.skipif(GEVENT, reason="forks from a process of its own")


def outcome(program: str, url: str, prefix: str, *, kind: str = "") -> dict[str, Any]:
    """What a program of tests/apps prints as JSON; a hang is a failure."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.apps.{program}", *filter(None, [kind]), url, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    # What is thrown into a destructor Python can only print.
    if not kind:
        assert "Traceback" not in done.stderr, done.stderr[-4000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("program", ["forking_threads", "forking_asyncio"])
def test_children_send_and_receive_after_the_parent_did(program: str, redis_url: str, prefix: str):
    told = outcome(program, redis_url, prefix)

    # Parent and children each sent 20 events while all of them listened.
    everything = sorted(event_id for process in told["processes"] for event_id in process["sent"])
    assert len(set(everything)) == len(everything) == 4 * 20
    for process in told["processes"]:
        assert sorted(process["received"]) == everything
        assert process["errors"] == []


def test_a_process_of_multiprocessing_sends_after_its_parent_did(redis_url: str, prefix: str):
    told = outcome("forking_multiprocessing", redis_url, prefix)

    assert len(set(told["ids"])) == 5
    assert [int(i.split("-")[1]) for i in told["ids"]] == [1, 2, 3, 4, 5]


def test_memory_warns_after_a_fork(prefix: str):
    told = outcome("forking_memory", "memory://", prefix)

    assert told["warnings"] == 1


def test_a_forked_child_neither_writes_nor_ends_what_its_parent_began(redis_url: str, prefix: str):
    told = outcome("forking_writer", redis_url, prefix)

    assert told["error"] == "a writer can't be used in a forked process; make one there"
    assert told["parent"] == ["the ", "parent's", '{"reason":"done"}']
    assert told["child"] == ["the child's", '{"reason":"done"}']


@pytest.mark.parametrize("store", ["redis", "memory"])
def test_a_platform_without_forks_has_everything_else(store: str, redis_url: str, prefix: str):
    url = "memory://" if store == "memory" else redis_url

    told = outcome("without_forks", url, prefix)

    assert told["heard"] == ["to threads", "to a page", "to tasks"]
