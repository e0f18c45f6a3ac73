"""The stage itself: what fails to come up leaves nothing behind."""

from __future__ import annotations

import threading

import psutil
import pytest

from .stage import Stage


def test_one_that_fails_to_come_up_has_closed_what_it_opened():
    before = set(psutil.Process().children()), set(threading.enumerate())

    with pytest.raises(KeyError):
        Stage(("no such server",))

    assert set(psutil.Process().children()) <= before[0]
    assert set(threading.enumerate()) <= before[1]
