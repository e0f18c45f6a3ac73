"""Redis away, from the point of view of a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest

from tests.servers import RedisServer
from tests.sites import Site

KINDS = ["gunicorn-gthread", "gunicorn-gevent", "uvicorn", "granian"]
OPENED = re.compile(rb"retry: \d+\n(?::\n)+event: stream-open\ndata: {}\nid: [1-9]\d{15}-0-0\n\n")


@pytest.mark.parametrize("kind", KINDS)
def test_redis_away_at_connect_leaves_the_first_block_open(
    new_site: Callable[..., Site], redis_server: RedisServer, room: str, kind: str
):
    redis_server.kill()
    site = new_site(kind, url=redis_server.url)
    start = time.monotonic()
    browser = site.browser(room).wait_for(lambda b: b.retries, 3, "retry")
    assert time.monotonic() - start < 1.5
    browser.wait_for(lambda b: b.body.count(b":\n") >= 3, 5, "keep-alives in the open block")
    assert browser.body == f"retry: {browser.retries[0]}\n".encode() + b":\n" * (
        browser.body.count(b"\n") - 1
    )
    assert browser.events == []

    redis_server.start()
    browser.wait_open(5)
    sent = site.streams.send_event(room, "x")

    assert OPENED.match(browser.body), browser.body
    assert browser.wait_for(1).messages[0].last_event_id == sent
    assert (browser.connects, browser.statuses) == (1, [200])


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "uvicorn"])
def test_redis_hanging_at_connect_is_redis_away(
    new_site: Callable[..., Site], redis_server: RedisServer, room: str, kind: str
):
    site = new_site(kind, url=redis_server.url)
    earlier = site.browser(f"{room} earlier").wait_open()
    redis_server.hang()
    try:
        start = time.monotonic()
        browser = site.browser(room).wait_for(lambda b: b.retries, 5, "retry")
        assert time.monotonic() - start < 1.5
        browser.wait_for(lambda b: b.body.count(b":\n") >= 2, 5, "keep-alives")
        size = len(earlier.body)
        earlier.wait_for(lambda b: len(b.body) > size + 2, 5, "keep-alives go on")
    finally:
        redis_server.go_on()
    browser.wait_open(8)
    sent = site.streams.send_event(room, "x")

    browser.wait_for(1)
    assert browser.messages[0].last_event_id == sent
    assert (browser.connects, earlier.connects) == (1, 1)


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "uvicorn"])
def test_a_cursor_survives_redis_being_away(
    new_site: Callable[..., Site], durable_redis_server: RedisServer, room: str, kind: str
):
    site = new_site(kind, url=durable_redis_server.url)
    ids = site.streams.send_events(room, ["a", "b"])
    durable_redis_server.kill()
    browser = site.browser(room, last_event_id=ids[0]).wait_for(lambda b: b.retries, 3)
    # Cut inside of the open block: its cursor must still be the old one.
    browser.cut(reset=True)
    browser.wait_for(lambda b: b.opens == 2, 5, "it comes back")
    assert browser.last_event_id == ids[0]

    durable_redis_server.start()

    browser.wait_for(1)
    assert [e.last_event_id for e in browser.messages] == [ids[1]]
