"""Forks: what a child process does first."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ["do_in_each_fork"]


def do_in_each_fork(hook: Callable[[], None]) -> None:
    """Calls hook in every process that is forked from now on, where there are forks at all."""
    # Windows has none.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=hook)
