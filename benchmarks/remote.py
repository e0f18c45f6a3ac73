"""An object in a process of its own, on the cores that are not the server's."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from .process import Process

__all__ = ["Remote", "Request", "serve"]

# A method's name and its arguments.
Request = tuple[str, tuple[Any, ...]]


class Remote:
    """Calls an object's methods in another process, one at a time.

    Args:
        main: what runs there; answers the requests that it reads from the connection it is given.
    """

    def __init__(self, main: Callable[[Connection], None]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.process = Process(self._process.pid)

    def call(self, method: str, *arguments: Any) -> Any:
        """What the method returns there."""
        self.start(method, *arguments)
        return self.result(60)

    def start(self, method: str, *arguments: Any) -> None:
        """Begins a call; `result` has to follow."""
        self._pipe.send((method, arguments))

    def is_done(self) -> bool:
        """Whether the call that was begun has ended."""
        return self._pipe.poll(0)

    def result(self, timeout: float) -> Any:
        """What the call that was begun returned.

        Raises:
            RuntimeError: it raised, or didn't return in time.
        """
        if not self._pipe.poll(timeout):
            raise RuntimeError(f"no answer within {timeout:.0f} s")
        is_fine, value = self._pipe.recv()
        if not is_fine:
            raise RuntimeError(value)
        return value

    def close(self) -> None:
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()


def serve(target: object, pipe: Connection) -> bool:
    """Answers one request; False when nobody will send another."""
    try:
        method, arguments = pipe.recv()
    except EOFError:
        return False
    try:
        pipe.send((True, getattr(target, method)(*arguments)))
    except Exception:
        pipe.send((False, f"at {time.ctime()}: {traceback.format_exc()}"))
    return True
