"""The link: when it asks, when it is lost, and how long it waits."""

from __future__ import annotations

from streamy_redis.config import PING_INTERVAL, PONG_TIMEOUT, RECONNECT_INTERVAL, STEADY_INTERVAL
from streamy_redis.core.link import Link

ERROR = ConnectionError("gone")
SHORTEST, LONGEST = RECONNECT_INTERVAL


def working_link(now: float = 0.0) -> Link:
    link = Link()
    link.begun()
    link.made(now)
    link.heard(now)
    return link


def lose_at_once(link: Link, now: float) -> float:
    """A connection that is refused; the pause after it, with the highest throw of the dice."""
    link.begun()
    link.lost(ERROR)
    return link.pause(now, 1.0)


def test_asks_once_after_a_silence_and_is_silent_if_nothing_comes():
    link = working_link()
    assert not link.must_ping(PING_INTERVAL)
    asked = PING_INTERVAL + 0.1
    assert link.must_ping(asked)
    assert not link.must_ping(asked + 0.1)
    assert not link.is_silent(asked + PONG_TIMEOUT)
    assert link.is_silent(asked + PONG_TIMEOUT + 0.1)


def test_whatever_comes_is_an_answer():
    link = working_link()
    assert link.must_ping(PING_INTERVAL + 0.1)
    link.heard(PING_INTERVAL + 1)
    assert not link.is_silent(100)
    assert link.must_ping(2 * PING_INTERVAL + 1.1)


def test_what_is_connected_but_silent_does_not_work_yet():
    link = working_link()
    link.lost(ERROR)
    link.begun()
    link.made(1)
    assert link.error is ERROR
    link.heard(1.1)
    assert link.error is None


def test_pauses_grow_to_a_bound_and_begin_anew_after_one_that_lasted():
    link = working_link()
    pauses = [lose_at_once(link, 1.0) for _ in range(8)]
    assert pauses[:3] == [0.0, SHORTEST, 2 * SHORTEST]
    assert pauses[-1] == LONGEST
    link.begun()
    link.made(10)
    link.heard(10 + STEADY_INTERVAL)
    assert lose_at_once(link, 20) == 0.0


def test_one_that_lived_for_a_while_has_had_its_pause():
    link = working_link()
    for _ in range(8):
        lose_at_once(link, 1.0)
    link.begun()
    link.made(10)
    link.lost(ERROR)
    assert link.pause(10 + LONGEST / 4, 1.0) == LONGEST * 3 / 4
    link.begun()
    link.made(20)
    link.lost(ERROR)
    assert link.pause(20 + 2 * LONGEST, 1.0) == 0.0


def test_a_trouble_is_told_once_and_over_when_a_connection_has_lasted():
    link = working_link()
    assert link.lost(ERROR)
    for now in (1.0, 2.0):
        link.begun()
        link.made(now)
        assert not link.heard(now)
        assert not link.lost(ERROR)
    link.begun()
    link.made(3)
    assert not link.heard(3)
    assert link.heard(3 + STEADY_INTERVAL)
    assert not link.heard(4 + STEADY_INTERVAL)
    assert link.lost(ERROR)
