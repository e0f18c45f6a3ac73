"""Wake-ups: what threads wait for, a turn that only one may take, and work for other threads.

An exception may be thrown into any thread at any moment: a handler of a signal raises, a time limit
is over. Python's threading.Event holds a lock of its own in methods written in Python, and one that
is thrown out of them leaves it locked: whoever wants to wake that thread hangs. Here each change is
one call of C, between whose beginning and end nothing is thrown.
"""

from __future__ import annotations

import _thread
import functools
import queue
import threading
from collections.abc import Callable

from ..core.batch import move_result

__all__ = ["WakeUp", "do_elsewhere", "take_turn"]


def take_turn(lock: threading.Lock, turn: list[bool]) -> None:
    """Puts True into an empty list if the lock was free and is held now; else False.

    A `finally` that begins with asking that list gives it back, whatever is thrown meanwhile.
    """
    move_result(functools.partial(lock.acquire, False), turn)


def do_elsewhere(name: str, act: Callable[[], None]) -> None:
    """Calls it in a thread of its own, to which nobody throws anything.

    Thread.start() waits, and may be interrupted as well; so another thread calls it.

    Raises:
        RuntimeError: there are too many threads.
    """
    thread = threading.Thread(target=act, name=f"streamy-redis-{name}", daemon=True)
    _thread.start_new_thread(thread.start, ())


class WakeUp:
    """What threading.Event does, for threads and greenlets that may be interrupted."""

    __slots__ = ("_is_set", "_tokens")

    def __init__(self) -> None:
        self._is_set = False
        # One is there while it is set, and passed on by whoever waits. A handler that sets it while
        # its thread does may leave two.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        if self._tokens.empty():
            self._tokens.put(None)

    def clear(self) -> None:
        self._is_set = False
        try:
            while True:
                self._tokens.get_nowait()
        except queue.Empty:
            return

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it was set in time."""
        if self._is_set:
            return True
        try:
            self._tokens.get(timeout=None if seconds is None else max(0.0, seconds))
        except queue.Empty:
            return self._is_set
        self._tokens.put(None)
        return True
