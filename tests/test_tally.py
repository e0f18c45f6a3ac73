"""The tally of one process, and of those forked from it."""

from __future__ import annotations

import os

import pytest

from streamy_redis import StreamStats
from streamy_redis.tally import Tally


class Follower:
    def __init__(self) -> None:
        self.updates = 0
        self.delays: list[float] = []

    def update(self) -> None:
        self.updates += 1

    def written(self, delay: float) -> None:
        self.delays.append(delay)


class Broken(Follower):
    def update(self) -> None:
        super().update()
        raise OSError("disk full")

    def written(self, delay: float) -> None:
        super().written(delay)
        raise OSError("disk full")


class Counting:
    """A listener, as far as a tally knows one."""

    def __init__(self, **figures: int) -> None:
        self.figures = figures

    def stats(self) -> StreamStats:
        return StreamStats(**self.figures)


@pytest.fixture
def tally() -> Tally:
    return Tally()


def test_listeners_add_up_and_the_highest_water_stays(tally: Tally):
    first = Counting(frames_written=1, backlog_high_water=7, subscribers=2, refused=1)
    second = Counting(frames_written=2, backlog_high_water=3, subscribers=4, refused=5)
    for listener in (first, second, first):
        tally.add(listener.stats)

    assert tally.stats() == StreamStats(
        frames_written=3, backlog_high_water=7, subscribers=6, refused=6
    )


def test_of_one_that_is_settled_the_counts_stay_and_nothing_is_open(tally: Tally):
    over = Counting(frames_written=5, subscribers=2, streams=2)
    tally.add(over.stats)

    for _ in range(2):
        tally.settle(over.stats)
    over.figures["frames_written"] = 99

    assert tally.stats() == StreamStats(frames_written=5)


def test_a_fork_begins_anew(tally: Tally):
    tally.add(Counting(frames_written=5).stats)
    reading, writing = os.pipe()

    pid = os.fork()
    if pid == 0:
        tally.add(Counting(frames_written=2).stats)
        os.write(writing, str(tally.stats().frames_written).encode())
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 100) == b"2"
    assert tally.stats().frames_written == 5
    os.close(reading)
    os.close(writing)


def test_followers_hear_of_updates_and_of_delays_that_are_never_negative(tally: Tally):
    follower = Follower()
    tally.follow(follower)

    tally.settle(Counting().stats)
    tally.written([float("inf"), 0.0])

    assert follower.updates == 1
    assert follower.delays[0] == 0.0
    assert follower.delays[1] > 0.0


def test_a_follower_that_fails_is_told_of_once_and_harms_nobody(
    tally: Tally, caplog: pytest.LogCaptureFixture
):
    broken, follower = Broken(), Follower()
    tally.follow(broken)
    tally.follow(follower)

    for _ in range(3):
        tally.update()
        tally.written([0.0])

    for each in (broken, follower):
        assert (each.updates, len(each.delays)) == (3, 3), "it is still told"
    [record] = caplog.records
    assert (record.name, record.levelname) == ("streamy_redis.tally", "ERROR")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "disk full"
