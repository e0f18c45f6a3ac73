"""What waits and goes to Redis together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamy_redis.core.batch import move_batch, move_newest


@dataclass(frozen=True)
class Thing:
    size: int


def batch_of(*sizes: int, most: int = 3, most_bytes: int = 100) -> tuple[list[int], list[int]]:
    """The sizes that are in the batch, and those that wait still."""
    waiting, batch = deque(map(Thing, sizes)), list[Thing]()
    move_batch(waiting, batch, most=most, most_bytes=most_bytes)
    return [each.size for each in batch], [each.size for each in waiting]


def test_the_oldest_go_first_up_to_the_count():
    assert batch_of(1, 2, 3, 4) == ([1, 2, 3], [4])


def test_what_exceeds_the_bytes_waits():
    assert batch_of(60, 40, 1) == ([60, 40], [1])


def test_one_always_goes():
    assert batch_of(500, 1) == ([500], [1])


def test_nothing_waits_nothing_goes():
    assert batch_of() == ([], [])


def test_the_newest_is_moved_if_there_is_one():
    rest, held = deque("ab"), list[str]()

    for _ in range(3):
        move_newest(rest, held)

    assert (held, list(rest)) == (["b", "a"], [])
