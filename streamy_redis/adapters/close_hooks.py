"""Close hooks: what responses do at their end, for those that are over without their worker.

A hook may wait, for a database say, and whoever ends such a response must not. So a few threads
run the hooks, however many responses end at once, and end themselves when there are no more.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..config import CLOSE_HOOK_EXIT_TIMEOUT, CLOSE_HOOK_THREADS

__all__ = ["run_close_hooks"]

_log = logging.getLogger("streamy_redis.handover")

# Those of one response, to be run one after the other.
Hooks = Sequence[Callable[[], Any]]


def run_close_hooks(hooks: Hooks) -> None:
    """Runs a response's hooks, soon and elsewhere; here and now where the process exits."""
    if not hooks:
        return
    pid = os.getpid()
    for inherited in [each for each in list(_runners) if each != pid]:
        # Its hooks are the parent's to run.
        _runners.pop(inherited, None)
    # One call that no other thread can split: the first to come wins.
    _runners.setdefault(pid, _Runner(pid)).run(hooks)


class _Runner:
    """What one process has: hooks that wait, and the threads that run them."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._waiting: deque[Hooks] = deque()
        self._changed = threading.Condition()
        # Each of them looks for hooks once more before it ends.
        self._threads = 0
        self._is_told_of_exit = False

    def run(self, hooks: Hooks) -> None:
        if not threading.main_thread().is_alive():
            # The process exits: no thread comes to anything any more.
            _run(hooks)
            return
        with self._changed:
            self._waiting.append(hooks)
            if not self._is_told_of_exit:
                self._is_told_of_exit = True
                atexit.register(self._finish)
            # Those that there are may all be waiting.
            if self._threads < CLOSE_HOOK_THREADS:
                self._start()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="streamy-redis-close", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            _log.warning("what a response does at its end waits for the next one's: %s", exc)
        else:
            self._threads += 1

    def _work(self) -> None:
        while True:
            self._run_waiting()
            with self._changed:
                if not self._waiting:
                    self._threads -= 1
                    self._changed.notify_all()
                    return

    def _run_waiting(self) -> None:
        while True:
            if os.getpid() != self._pid:
                # A forked greenlet. Python knows of no such thread here, and would complain of
                # its end.
                threading.Event().wait()
            try:
                hooks = self._waiting.popleft()
            except IndexError:
                return
            _run(hooks)

    def _finish(self) -> None:
        """At exit: runs what waits, and gives what is under way a moment."""
        if os.getpid() != self._pid:
            # A fork has inherited this as well.
            return
        self._run_waiting()
        deadline = time.monotonic() + CLOSE_HOOK_EXIT_TIMEOUT
        with self._changed:
            while self._threads and (remaining := deadline - time.monotonic()) > 0:
                self._changed.wait(remaining)


def _run(hooks: Hooks) -> None:
    for hook in hooks:
        try:
            hook()
        except BaseException:
            # What would end a thread, too: the next one may be another response's.
            _log.exception("what a response does at its end failed")


# By process, since a fork inherits them.
_runners: dict[int, _Runner] = {}
