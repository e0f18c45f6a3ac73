"""The README's examples, run with the README's commands against a real Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from streamy_redis import StreamManager
from tests.browser import EventSource
from tests.servers import RedisServer

from .document import EXAMPLES
from .example import Example, run_job

PERCENT = list(range(0, 101, 10))

Start = Callable[..., Example]


@pytest.fixture
def start(redis_server: RedisServer) -> Iterator[Start]:
    """Examples write to a prefix of their own choice, so each test has its own Redis."""
    with ExitStack() as stack:

        def start(app: str, **options: Any) -> Example:
            return stack.enter_context(Example(app, redis_server.url, **options))

        yield start


@pytest.mark.parametrize("app", ["flask_app", "fastapi_app", "starlette_app"])
def test_a_browser_receives_what_the_job_sends_until_the_end(
    start: Start, redis_server: RedisServer, tmp_path: Path, app: str
):
    site = start(app, like="fastapi_app" if app == "starlette_app" else app)
    with EventSource(site.stream) as first, EventSource(site.stream) as second:
        for browser in (first, second):
            browser.wait_open()

        run_job(redis_server.url, tmp_path / "job.log")
        with StreamManager(redis_server.url) as streams:
            streams.end_stream("report-7")

        for browser in (first, second):
            browser.wait_closed()
            assert [json.loads(e.data)["percent"] for e in browser.of_type("progress")] == PERCENT
            assert browser.events[-1].type == "stream-end"
            assert browser.statuses == [200, 204]


def test_the_flask_example_serves_the_page(start: Start):
    site = start("flask_app")

    answer = httpx.get(f"{site.url}/static/page.html")

    assert answer.text == (EXAMPLES / "static" / "page.html").read_text()
    assert f'EventSource("{site.stream.removeprefix(site.url)}")' in answer.text


def test_the_app_moved_from_flask_streamy_greets(start: Start):
    site = start("from_flask_streamy", like="flask_app", path="/stream/room")
    with EventSource(site.stream) as browser, EventSource(site.stream) as another:
        for each in (browser, another):
            each.wait_open()

        assert httpx.post(f"{site.url}/greet/room").text == "sent"

        for each in (browser, another):
            [greeting] = each.wait_for(1).messages
            assert (greeting.type, greeting.data) == ("greeting", "hello")


def test_the_app_moved_from_flask_sse_greets(start: Start):
    site = start("from_flask_sse", like="flask_app", path="/stream", variable="REDIS_URL")
    with EventSource(site.stream) as browser:
        browser.wait_open()

        assert httpx.post(f"{site.url}/greet").text == "sent"

        [greeting] = browser.wait_for(1).messages
        assert (greeting.type, json.loads(greeting.data)) == ("greeting", {"text": "hello"})


def test_the_limited_app_resumes_at_a_cursor_in_the_address(
    start: Start, redis_server: RedisServer
):
    site = start("limited_app", like="flask_app")
    with StreamManager(redis_server.url) as streams:
        ids = [streams.send_event("report-7", str(n)) for n in range(3)]

    with EventSource(f"{site.stream}?lastEventId={ids[0]}") as browser:
        assert browser.wait_for(2).data == ["1", "2"]
    with EventSource(f"{site.stream}?lastEventId=") as newcomer:
        assert newcomer.wait_open().data == []


def test_the_limited_app_refuses_when_it_is_full(start: Start):
    site = start("limited_app", like="flask_app")
    with ExitStack() as stack:
        browsers: list[EventSource] = []
        # Twenty for each of two workers, whichever a browser meets.
        for _ in range(41):
            browsers.append(stack.enter_context(EventSource(site.stream)))
            browsers[-1].wait_for(lambda b: b.statuses)

        refused = [b for b in browsers if b.statuses == [503]]

        assert refused
        assert all(b.wait_closed().header("retry-after") for b in refused)
        assert len(browsers) - len(refused) >= 20
