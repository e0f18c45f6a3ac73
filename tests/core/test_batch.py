"""What waits and goes to Redis together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from streamy_redis.core.batch import BatchSize, move_batch, move_newest


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


def test_batches_are_halved_by_slow_exchanges_and_grow_again_by_fast_ones():
    size = BatchSize(100, 64_000, slow=1.0)

    sizes = []
    for seconds in (1.1, 1.1, 0.7, 0.1, 0.1, 0.1):
        size.note(seconds)
        sizes.append((size.most, size.most_bytes))

    half, quarter, whole = (50, 32_000), (25, 16_000), (100, 64_000)
    assert sizes == [half, quarter, quarter, half, whole, whole]


def test_one_always_goes_however_slow_it_is():
    size = BatchSize(100, 64_000, slow=1.0)

    for _ in range(50):
        size.note(5.0)

    assert (size.most, size.most_bytes) == (1, 640)
