"""Standard output: what it looks like, and that its reader may be gone."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

__all__ = [
    "as_json",
    "leave_output",
    "log_to_standard_error",
    "open_closed_streams",
    "printable",
    "watch_output",
]


def as_json(fields: Mapping[str, Any]) -> str:
    """One line of printable ASCII, so that no terminal or locale gets in its way."""
    # The one control character that JSON need not escape (RFC 8259, 7).
    return json.dumps(fields).replace("\x7f", "\\u007f")


def printable(text: object) -> str:
    """The text without what steers a terminal or turns its text around: escaped, but for tabs."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in str(text))


def log_to_standard_error(level: int) -> None:
    """Shows the log from this level on, with times."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


class _PrintableFormatter(logging.Formatter):
    """What Redis says may steer the terminal, here as in all that commands print."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def watch_output(on_unread: Callable[[], None]) -> threading.Event:
    """Notices that nobody reads standard output any more, while there is nothing to write.

    Args:
        on_unread: called then, by a thread of its own.

    Returns:
        An event that is set before that.
    """
    is_unread = threading.Event()
    if not hasattr(select, "poll"):
        # Windows: the next write notices it.
        return is_unread
    poll = select.poll()
    # Without events to ask for, poll(2) tells of POLLERR: a pipe without a reader.
    poll.register(sys.stdout.fileno(), 0)

    def watch() -> None:
        poll.poll()
        is_unread.set()
        on_unread()

    threading.Thread(target=watch, name="streamy-redis output", daemon=True).start()
    return is_unread


def leave_output() -> None:
    """Lets Python end without a complaint that it couldn't flush what nobody can take."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_closed_streams() -> None:
    """Gives /dev/null to what the caller has closed (``>&-``), for which Python has None.

    Else a connection to Redis would get its number, and what is written there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # as long as the process
