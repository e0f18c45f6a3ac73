"""The headers of a stream's response."""

from __future__ import annotations

import pytest

from streamy_redis import InvalidEvent
from streamy_redis.core.headers import retry_after, sent_headers, stream_headers


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


def test_what_is_sent_is_what_a_server_would_send_of_it():
    given = [("Content-Type", "text/plain"), ("Date", "now"), ("connection", "close")]
    given += [("X-A", " 1\t"), ("X-B", ""), ("X-C", "é"), ("Upgrade", "h2c"), ("X-A", "2")]

    assert sent_headers(given) == [
        ("Content-Type", "text/plain"),
        ("X-A", "1"),
        ("X-B", ""),
        ("X-C", "é"),
        ("X-A", "2"),
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A\r\nX-B", "1"),
        ("X-A\n", "1"),
        ("X A", "1"),
        ("", "1"),
        ("X-Ł", "1"),
        ("X-A", "1\r\nX-B: 2"),
        ("X-A", "1\n"),
        ("X-A", "secret\0"),
        ("X-A", "secret €"),
    ],
)
def test_what_http_cannot_carry_is_not_sent_nor_told(name, value):
    with pytest.raises(ValueError, match="header") as raised:
        sent_headers([("X-B", "1"), (name, value)])

    assert "secret" not in str(raised.value)
