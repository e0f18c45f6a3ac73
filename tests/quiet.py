"""The machine as something that timed tests share, or have for themselves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["the_machine"]


@contextlib.contextmanager
def the_machine(*, alone: bool, folder: str | Path | None = None) -> Iterator[None]:
    """Held together with other processes that ask for it, or alone.

    Who waits to have it alone keeps those away who come later.

    Args:
        folder: of the locks; the one for temporary files by default.
    """
    where = Path(folder or tempfile.gettempdir())
    with _lock(where, "door") as door, _lock(where, "machine") as machine:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            # A process forked off meanwhile has the same lock: to close it is not enough.
            fcntl.flock(machine, fcntl.LOCK_UN)


def _lock(folder: Path, name: str) -> TextIO:
    return (folder / f"streamy-quiet-{os.getuid()}-{name}").open("a")
