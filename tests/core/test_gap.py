"""Every way in which a cursor and a log can meet."""

from __future__ import annotations

import pytest

from streamy_redis.core.gap import Gap, find_gap
from streamy_redis.core.history import HistoryRequest
from streamy_redis.core.publication import Position
from tests.core.redis_model import RedisModel


@pytest.fixture
def redis() -> RedisModel:
    redis = RedisModel()
    for _ in range(5):
        redis.send()
    return redis


def _gap(redis: RedisModel, cursor: Position) -> Gap | None:
    page = redis.read(HistoryRequest.after("s", cursor, limit=10))
    return find_gap(cursor, page, cursor_ttl=600.0)


def test_none_where_the_cursor_is_in_the_log(redis):
    assert _gap(redis, redis.log[2].position) is None


def test_none_where_the_cursor_has_no_tag(redis):
    assert _gap(redis, redis.log[2].position._replace(tag="0")) is None


def test_rewritten_where_another_event_stands_at_the_cursor(redis):
    cursor = redis.log[-1].position
    redis.roll_back(1)
    redis.send(remembers=False)

    assert _gap(redis, cursor) is Gap.REWRITTEN


def test_none_where_just_the_cursors_entry_was_trimmed(redis):
    cursor = redis.log[2].position
    redis.trim(2)

    assert _gap(redis, cursor) is None


def test_rewritten_where_the_successor_remembers_another_tag(redis):
    cursor = redis.log[2].position._replace(tag="ffffffff")
    redis.trim(2)

    assert _gap(redis, cursor) is Gap.REWRITTEN


def test_a_hole_is_left_to_the_entries(redis):
    cursor = redis.log[0].position
    redis.trim(2)

    assert _gap(redis, cursor) is None


def test_replaced_where_another_life_has_begun(redis):
    cursor = redis.log[-1].position
    redis.flush()
    redis.send()

    assert _gap(redis, cursor) is Gap.REPLACED


def test_lost_where_there_is_no_log(redis):
    cursor = redis.log[-1].position
    redis.flush()

    assert _gap(redis, cursor) is Gap.LOST


def test_none_where_all_was_trimmed_and_the_cursor_was_the_newest(redis):
    cursor = redis.log[-1].position
    redis.trim(0)

    assert _gap(redis, cursor) is None


def test_lost_where_all_was_trimmed_and_the_cursor_was_older(redis):
    cursor = redis.log[1].position
    redis.trim(0)

    assert _gap(redis, cursor) is Gap.LOST


def test_none_where_the_cursors_entry_was_the_newest_and_was_deleted(redis):
    cursor = redis.log[-1].position
    redis.delete_newest()

    assert _gap(redis, cursor) is None


def test_lost_where_a_life_began_after_a_start_cursor_and_was_trimmed_to_nothing():
    redis = RedisModel()
    cursor = Position.start(redis.clock)
    redis.send()
    redis.trim(0)

    assert _gap(redis, cursor) is Gap.LOST


def test_ahead_where_the_log_was_rolled_back(redis):
    cursor = redis.log[-1].position
    redis.roll_back(2)

    assert _gap(redis, cursor) is Gap.AHEAD


def test_none_where_nothing_was_sent_since_a_start_cursor():
    redis = RedisModel()

    assert _gap(redis, Position.start(redis.clock)) is None


def test_none_where_the_newest_of_an_older_life_was_deleted_before_a_start_cursor(redis):
    redis.delete_newest()

    assert _gap(redis, Position.start(redis.clock)) is None


def test_none_where_the_first_life_began_after_a_start_cursor():
    redis = RedisModel()
    cursor = Position.start(redis.clock)
    redis.send()

    assert _gap(redis, cursor) is None


@pytest.mark.parametrize("has_begun", [False, True])
def test_expired_where_a_whole_life_may_have_passed_since_a_start_cursor(has_begun):
    redis = RedisModel()
    cursor = Position.start(redis.clock)
    redis.advance(601)
    if has_begun:
        redis.send()

    assert _gap(redis, cursor) is Gap.EXPIRED


def test_ahead_where_a_start_cursor_is_of_the_future():
    redis = RedisModel()

    assert _gap(redis, Position.start(redis.clock + 10_000_000)) is Gap.AHEAD
