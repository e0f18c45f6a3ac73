"""The headers of a stream's response."""

from __future__ import annotations

import pytest

from streamy_redis import InvalidEvent
from streamy_redis.core.headers import retry_after, stream_headers


def test_defaults_where_none_are_given():
    assert stream_headers(None) == [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
    ]


def test_the_callers_stand_over_the_defaults_whatever_their_case():
    headers = stream_headers({"CACHE-Control": "no-cache", "X-Own": "1"})

    assert headers == [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("x-accel-buffering", "no"),
        ("cache-control", "no-cache"),
        ("x-own", "1"),
    ]


def test_a_list_may_repeat_a_name():
    headers = stream_headers([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])

    assert headers[-2:] == [("set-cookie", "a=1"), ("set-cookie", "b=2")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A\r\nX-B", "1"),
        ("X A", "1"),
        ("", "1"),
        ("X-A", "1\r\nX-B: 2"),
        ("X-A", "\0"),
        ("X-A", "€"),
        ("X-A", 1),
        (1, "1"),
        ("Connection", "close"),
        ("Content-Length", "3"),
        ("transfer-encoding", "chunked"),
    ],
)
def test_refuses_what_http_cannot_carry_or_only_the_server_may_set(name, value):
    with pytest.raises(InvalidEvent, match="headers must"):
        stream_headers({name: value})


def test_the_refused_come_back_at_different_times():
    assert len({retry_after()[1] for _ in range(200)}) > 3
