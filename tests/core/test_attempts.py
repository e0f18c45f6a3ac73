"""How often, and until when, a send is tried."""

from __future__ import annotations

from streamy_redis.core.attempts import Attempts


def _attempts(**changes: float) -> Attempts:
    arguments = {"latest": 8.0, "max_retries": 3, "backoff": (0.1, 0.3)} | changes
    return Attempts(10.0, **arguments)


def test_pauses_grow_up_to_the_longest():
    attempts = _attempts()

    assert [attempts.pause(0.0, 1.0) for _ in range(3)] == [0.1, 0.2, 0.3]


def test_gives_up_after_max_retries():
    attempts = _attempts(max_retries=1)

    assert attempts.pause(0.0, 0.0) is not None
    assert attempts.pause(0.0, 0.0) is None


def test_gives_up_when_the_pause_would_reach_the_deadline():
    assert _attempts().pause(9.95, 1.0) is None


def test_dice_spread_the_pauses():
    assert (_attempts().pause(0.0, 0.0), _attempts().pause(0.0, 1.0)) == (0.05, 0.1)


def test_only_a_later_try_may_be_a_repeat():
    attempts = _attempts()
    assert not attempts.is_retry

    attempts.pause(0.0, 0.0)

    assert attempts.is_retry


def test_what_somebody_else_broke_off_is_repeated_at_once_and_is_no_try():
    attempts = _attempts(max_retries=0)

    assert [attempts.repeat(7.9) for _ in range(5)] == [0.0] * 5
    assert attempts.is_retry


def test_nothing_is_repeated_that_could_not_be_answered_in_time():
    assert _attempts().repeat(8.0) is None


def test_the_first_failure_of_a_whole_batch_is_no_try():
    attempts = _attempts(max_retries=1)

    assert [attempts.share(0.0, 1.0) for _ in range(3)] == [0.0, 0.1, None]
    assert attempts.is_retry
