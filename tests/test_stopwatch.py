"""What the stopwatch of the tests leaves out."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from .stopwatch import Stopwatch

SPIN = "import os; os.sched_setaffinity(0, {%d}); sum(range(20_000_000))"


def test_what_a_process_waits_for_a_processor_is_left_out():
    spin = [sys.executable, "-c", SPIN % min(os.sched_getaffinity(0))]
    crowd = [subprocess.Popen(spin) for _ in range(4)]
    watch, start = Stopwatch([crowd[0].pid]), time.monotonic()
    while watch.look() and crowd[0].poll() is None:
        time.sleep(0.01)
    took, timed = time.monotonic() - start, watch.seconds
    for each in crowd:
        each.wait(30)

    assert timed < took / 2
    assert abs(timed + watch.waited - took) < 0.1
