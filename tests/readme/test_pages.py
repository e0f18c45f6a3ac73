"""The README's pages in a real Chromium, where Playwright and one are installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamy_redis import StreamManager
from tests.deadline import Deadline
from tests.servers import RedisServer

from .example import Example, run_job, shows

EVENTS = "**/events/**"


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
            asked.append(route.request.url.partition("lastEventId=")[2])
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
