"""What a process remembers of streams."""

from __future__ import annotations

import sys
import threading

from streamy_redis.core.publication import Position
from streamy_redis.core.witness import Witnesses


def position(number: int) -> Position:
    return Position(1, number, "0" * 8)


def test_an_older_position_changes_nothing():
    witnesses = Witnesses(10)

    witnesses.note("room", position(2))
    witnesses.note("room", position(1))

    assert witnesses.of("room") == position(2)


def test_the_stream_that_was_sent_to_longest_ago_is_forgotten():
    witnesses = Witnesses(2)

    for stream_id in ("a", "b", "a", "c"):
        witnesses.note(stream_id, position(1))

    assert [witnesses.of(each) is None for each in "abc"] == [False, True, False]


def test_what_threads_note_in_one_moment_is_never_missing():
    witnesses = Witnesses(16)
    witnesses.note("room", position(1))
    missing: list[int] = []
    gate = threading.Barrier(4)

    def run(name: int) -> None:
        gate.wait(10)
        for number in range(3000):
            witnesses.note("room", position(number + 1))
            if witnesses.of("room") is None:
                missing.append(number)
            witnesses.note(f"{name} {number % 3}", position(number + 1))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    finally:
        sys.setswitchinterval(before)
    assert missing == []
