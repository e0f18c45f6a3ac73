"""The server's clock, as pages tell it."""

from __future__ import annotations

import pytest

from streamy_redis.core.clock import ServerClock

# The server's clock when ours says 0.
EPOCH = 1_800_000_000_000_000


def at(seconds: float) -> int:
    return EPOCH + round(seconds * 1e6)


@pytest.fixture
def clock() -> ServerClock:
    return ServerClock()


def test_knows_nothing_before_the_first_reading(clock: ServerClock):
    assert clock.local(EPOCH) is None


def test_takes_the_middle_of_the_round_trip(clock: ServerClock):
    clock.read(at(10.0), asked_at=9.5, now=10.5)

    assert clock.local(at(12.0)) == pytest.approx(12.0, abs=1e-6)


def test_a_slower_reading_does_not_spoil_a_better_one(clock: ServerClock):
    clock.read(at(10.0), asked_at=9.999, now=10.001)
    clock.read(at(11.0), asked_at=11.0, now=13.0)

    assert clock.local(at(12.0)) == pytest.approx(12.0, abs=0.001)


def test_a_quicker_reading_replaces_it(clock: ServerClock):
    clock.read(at(10.0), asked_at=10.0, now=12.0)
    clock.read(at(13.0), asked_at=12.999, now=13.001)

    assert clock.local(at(14.0)) == pytest.approx(14.0, abs=0.001)


def test_an_old_reading_gives_way_to_any_newer_one(clock: ServerClock):
    clock.read(at(10.0), asked_at=9.999, now=10.001)
    # Somebody has set the server's clock an hour ahead.
    clock.read(at(3671.0), asked_at=70.5, now=71.5)

    assert clock.local(at(3672.0)) == pytest.approx(72.0, abs=0.001)
