"""What responses do at their end: by few threads, all of it, and in time."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator

import pytest

from streamy_redis.adapters.close_hooks import run_close_hooks
from streamy_redis.config import CLOSE_HOOK_THREADS
from tests.deadline import Deadline


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "streamy-redis-close"]


@pytest.fixture(autouse=True)
def _they_end_by_themselves() -> Iterator[None]:
    yield
    Deadline(5).until(lambda: not threads(), threads)


def test_a_crowd_that_leaves_takes_few_threads_and_all_hooks_run():
    ran: list[int] = []
    may_go_on = threading.Event()

    def hook(n: int) -> Callable[[], None]:
        return lambda: may_go_on.wait(10) and ran.append(n)  # type: ignore[func-returns-value]

    for n in range(300):
        run_close_hooks([hook(n)])
    most = len(threads())
    may_go_on.set()

    Deadline(5).until(lambda: len(ran) == 300, lambda: len(ran))
    assert sorted(ran) == list(range(300))
    assert most == CLOSE_HOOK_THREADS


def test_those_of_one_response_run_in_their_order_although_one_raises():
    ran: list[str] = []

    def fail() -> None:
        ran.append("second")
        raise ValueError

    run_close_hooks([lambda: ran.append("first"), fail, lambda: ran.append("third")])

    Deadline(5).until(lambda: len(ran) == 3, ran)
    assert ran == ["first", "second", "third"]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_one_that_raises_is_logged_and_keeps_no_other_from_running(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
):
    ran = threading.Event()

    def fail() -> None:
        raise error("on purpose")

    for _ in range(3 * CLOSE_HOOK_THREADS):
        run_close_hooks([fail])
    run_close_hooks([ran.set])

    assert ran.wait(5)
    assert "what a response does at its end failed" in caplog.text
    assert "on purpose" in caplog.text


def test_one_that_hangs_keeps_no_other_from_running():
    may_go_on, ran = threading.Event(), threading.Event()
    for _ in range(CLOSE_HOOK_THREADS - 1):
        run_close_hooks([lambda: may_go_on.wait(10)])

    run_close_hooks([ran.set])

    try:
        assert ran.wait(5)
    finally:
        may_go_on.set()


def run(program: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_all_run_before_the_process_has_exited():
    printed = run("""
        import os, time
        from streamy_redis.adapters.close_hooks import run_close_hooks

        def hook(n):
            return lambda: (time.sleep(0.05), os.write(1, b"%d\\n" % n))

        for n in range(30):
            run_close_hooks([hook(n)])
    """)

    assert sorted(map(int, printed.split())) == list(range(30))


def test_those_that_come_while_the_process_exits_run_too():
    printed = run("""
        import atexit
        from streamy_redis.adapters.close_hooks import run_close_hooks

        atexit.register(lambda: run_close_hooks([lambda: print("late")]))
        run_close_hooks([lambda: print("early", flush=True)])
    """)

    assert printed == "early\nlate\n"


def test_one_that_hangs_holds_an_exit_up_no_longer_than_a_moment():
    run("""
        import threading
        import streamy_redis.adapters.close_hooks as close_hooks

        close_hooks.CLOSE_HOOK_EXIT_TIMEOUT = 0.3
        close_hooks.run_close_hooks([threading.Event().wait])
    """)


FORKING = """
    import os, threading
    from streamy_redis.adapters.close_hooks import run_close_hooks

    may_go_on = threading.Event()

    def hook(n):
        return lambda: may_go_on.wait(10) and os.write(1, b"of %d %d\\n" % (n, os.getpid()))

    for n in range(20):
        run_close_hooks([hook(n)])
    child = os.fork()
    may_go_on.set()
    if child == 0:
        ran = threading.Event()
        run_close_hooks([ran.set])
        os.write(1, b"child %d %s\\n" % (os.getpid(), b"has run" if ran.wait(5) else b"waits"))
        {end}
    waitpid(child, 0)
"""
# gevent's own may miss the end of a child that shared its loop.
BEFORE = "import os; waitpid = os.waitpid"


@pytest.mark.parametrize("end", ["raise SystemExit", "os._exit(0)"])
@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
def test_a_fork_runs_its_own_and_none_of_its_parents(patch: str, end: str):
    program = textwrap.dedent(FORKING.format(end=end))
    done = subprocess.run(
        [sys.executable, "-c", f"{BEFORE}\n{patch}\n{program}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    [child] = [line[1] for line in lines if line[0] == "child" and line[2] == "has"]

    ran = [(int(line[1]), line[2] == child) for line in lines if line[0] == "of"]
    assert sorted(n for n, is_childs in ran if not is_childs) == list(range(20)), done.stderr
    # A greenlet that is forked in the middle of a hook goes on with it, whoever runs it.
    under_way = CLOSE_HOOK_THREADS if patch else 0
    assert {n for n, is_childs in ran if is_childs} <= set(range(under_way))
