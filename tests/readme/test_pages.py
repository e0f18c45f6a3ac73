"""The README's pages in a real Chromium, where Playwright and one are installed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from streamy_redis import StreamManager
from tests.deadline import Deadline
from tests.servers import RedisServer

from .example import Example, run_job

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# On CI its absence is a failure.
pytestmark = pytest.mark.skipif(
    not CHROMIUM and "CI" not in os.environ, reason="no Chromium on PATH"
)

EVENTS = "**/events/**"


@pytest.fixture
def page() -> Iterator[Any]:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser.new_page()
        browser.close()


def shows(page: Any, percent: int) -> None:
    page.wait_for_function("percent => bar.value === percent", arg=percent, timeout=20_000)


def test_the_page_shows_the_job_s_progress(page: Any, redis_server: RedisServer, tmp_path: Path):
    with Example("flask_app", redis_server.url) as site:
        with page.expect_response(EVENTS):
            page.goto(f"{site.url}/static/page.html")

        run_job(redis_server.url, tmp_path / "job.log")

        shows(page, 100)


def test_the_page_that_opens_again_goes_on_at_its_cursor(page: Any, redis_server: RedisServer):
    site = Example("limited_app", redis_server.url, like="flask_app")
    with site, StreamManager(redis_server.url) as streams:
        asked: list[str] = []

        def answer(route: Any) -> None:
            asked.append(route.request.url.partition("cursor=")[2])
            if len(asked) == 2:
                route.fulfill(status=503)
            else:
                route.continue_()

        page.route(EVENTS, answer)
        with page.expect_response(EVENTS):
            page.goto(f"{site.url}/static/reopen.html")
        seen = streams.send_event("report-7", {"percent": 10}, "progress")
        shows(page, 10)

        for worker in site.workers():
            worker.kill()
        Deadline(10).until(lambda: len(site.workers()) == site.worker_count, "new workers")
        streams.send_event("report-7", {"percent": 20}, "progress")

        # The browser's own attempt is refused, so it gives up; the page's has the cursor.
        shows(page, 20)
        assert asked[:3] == ["", "", seen]
