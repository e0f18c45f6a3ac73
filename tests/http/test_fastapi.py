"""FastAPI: `def` and `async def` endpoints, and the application's own lifespan around ours."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sites import Site
from tests.web_servers import http


@pytest.fixture
def site(new_site: Callable[..., Site]) -> Site:
    return new_site("uvicorn", app="tests.apps.fastapi_app:app")


def test_both_kinds_of_endpoints_stream(site: Site, room: str):
    browsers = [site.browser(room, path=path).wait_open() for path in ("def", "async", "events")]

    answer = http.post(site.server.stream_url("send", room), content="x")

    for browser in browsers:
        assert browser.wait_for(1).messages[0].last_event_id == answer.json()["id"]
        assert browser.header("content-type") == "text/event-stream; charset=utf-8"


@pytest.mark.parametrize("path", ["def", "async"])
def test_both_kinds_answer_head_400_and_204(site: Site, room: str, path: str):
    url = site.server.stream_url(path, room)
    site.streams.end_stream(room)
    end = site.streams.info(room).last_event_id

    assert http.head(url).status_code == 200
    assert http.get(url, headers={"Last-Event-ID": end}).status_code == 204
    assert http.get(site.server.stream_url(path, "a\x01b")).status_code == 400


@pytest.mark.alone
def test_it_stops_within_a_second(site: Site, room: str):
    browsers = [site.browser(room, path=path).wait_open() for path in ("def", "async")]

    assert site.server.terminate(within=5) < 1

    for browser in browsers:
        browser.wait_for(lambda b: b.ends, 5)
        assert browser.ends[0] != "clean"
