"""Jobs on Celery and on RQ: whatever becomes of a job, its page is told, and stops waiting."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from streamy_redis import StreamConfig, StreamManager
from tests.browser import EventSource
from tests.web_servers import ROOT, http

from .foreign import assert_takes_its_own_pages_only
from .job_stack import CELERY, RQ, JobStack, WorkerKind

JOBS = StreamConfig(prefix="jobs")
KINDS = pytest.mark.parametrize("kind", [CELERY, RQ], ids=lambda kind: kind.folder)


@pytest.fixture(scope="module", params=[CELERY, RQ], ids=lambda kind: kind.folder)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JobStack]:
    """One for all tests that leave it as they found it."""
    log = tmp_path_factory.mktemp("jobs") / "worker.log"
    with JobStack(request.param, log, JOB_STEP=0.1, JOB_LEASE=20, JOB_WAIT=600) as stack:
        yield stack


# A job waits, begins, and goes on from there.
WHOLE = [0, *range(0, 101, 5)]


def percents(browser: EventSource) -> list[int]:
    return [json.loads(event.data)["percent"] for event in browser.of_type("progress")]


def runs(browser: EventSource) -> None:
    browser.wait_for(lambda b: any(0 < percent < 100 for percent in percents(b)), 15, "it runs")


def end_of(browser: EventSource, within: float = 15) -> dict[str, Any]:
    """The data of the end, after which the browser stops for good."""
    browser.wait_closed(within)
    assert browser.statuses[-1] == 204
    [end] = browser.of_type("stream-end")
    return json.loads(end.data)  # type: ignore[no-any-return]


def test_a_job_reports_its_progress_and_its_end(stack: JobStack):
    job = stack.job()
    first, second = stack.page(job), stack.page(job)

    assert end_of(first) == end_of(second) == {"reason": "done"}
    # A page that opens afterwards, or is loaded again.
    late = stack.page(job)
    assert end_of(late) == {"reason": "done"}
    for page in (first, second, late):
        assert percents(page) == WHOLE


def test_a_job_that_fails_says_so_without_its_text(stack: JobStack):
    page = stack.page(stack.job("?fails_at=3"))

    assert end_of(page) == {"reason": "failed", "error": "ValueError"}
    assert percents(page) == WHOLE[:4]


def test_a_job_whose_process_is_killed_is_told_by_its_worker(stack: JobStack):
    page = stack.page(stack.job())
    runs(page)

    stack.child().kill()

    # By the worker, since it isn't "lost", as the lease would say.
    assert end_of(page) == {"reason": "failed", "error": stack.kind.killed}
    # The worker goes on with the next job.
    runs(stack.page(stack.job()))


@KINDS
def test_jobs_whose_whole_worker_is_killed_are_lost_when_their_leases_run_out(
    kind: WorkerKind, tmp_path: Path
):
    with JobStack(kind, tmp_path / "worker.log", JOB_STEP=0.2, JOB_LEASE=2, JOB_WAIT=3) as stack:
        page = stack.page(stack.job())
        runs(page)

        stack.kill_worker()
        waiting = stack.job()
        page_of_waiting = stack.page(waiting)

        assert end_of(page) == {"reason": "lost"}
        assert percents(page)[-1] < 100
        # One that no worker has taken.
        assert end_of(page_of_waiting) == {"reason": "lost"}
        assert percents(page_of_waiting) == [0]

        # Nor does one take it after all, when its end has been forgotten.
        with StreamManager(stack.redis_server.url, config=JOBS) as streams:
            assert streams.delete_stream(waiting)
            stack.restart_worker()
            end_of(stack.page(stack.job("?fails_at=1")))
            assert not streams.info(waiting).exists


def test_a_job_promises_its_first_report_before_it_works(stack: JobStack):
    # Who is killed in the first step would else be given the time of one that waits.
    job = stack.job()

    with (
        contextlib.closing(stack.redis_server.connect()) as store,
        StreamManager(stack.redis_server.url, config=JOBS) as streams,
        streams.subscribe(job, replay="all") as events,
    ):
        for event in events:
            promised = store.zscore("jobs:leases", job)
            if event.kind == "event" and json.loads(event.data)["text"] == "begun":
                break
        assert promised is not None
        assert promised <= store.time()[0] + 20


def test_a_cancelled_job_stops(stack: JobStack):
    job = stack.job()
    page = stack.page(job)
    runs(page)

    http.delete(f"{stack.web.url}/jobs/{job}").raise_for_status()

    assert end_of(page) == {"reason": "cancelled"}
    # The one worker is free for the next.
    runs(stack.page(stack.job()))
    assert f"StreamEnded: stream {job!r}" not in stack.output(), "that is no error"


def test_killing_web_workers_and_the_feed_loses_nothing(stack: JobStack):
    pages = [stack.page(job) for job in [stack.job()] for _ in range(4)]
    for page in pages:
        runs(page)

    for worker in stack.web.workers():
        worker.kill()

    for page in pages:
        assert end_of(page, 30) == {"reason": "done"}
        assert percents(page) == WHOLE
        assert page.opens >= 2


def test_a_job_that_nobody_knows_stops_the_page(stack: JobStack):
    page = stack.page("nonsense")

    page.wait_closed()

    assert page.statuses == [404]


def test_only_its_own_pages_start_and_cancel_jobs_and_no_other_stream(stack: JobStack):
    assert_takes_its_own_pages_only(stack.web.url, "POST", "/jobs?fails_at=1", status=202)
    with StreamManager(stack.redis_server.url) as streams:
        streams.send_event("prod-orders", "first")

        assert_takes_its_own_pages_only(stack.web.url, "DELETE", "/jobs/prod-orders", status=204)

        assert not streams.info("prod-orders").ended


def test_the_source_of_the_app_is_not_served(stack: JobStack):
    address = urlsplit(stack.web.url)
    with contextlib.closing(HTTPConnection(address.hostname or "", address.port)) as connection:
        connection.request("GET", "/./jobs.py")  # httpx would tidy this up
        assert connection.getresponse().status == 404


def test_both_folders_have_the_same_page():
    celery, rq = (
        (ROOT / "integrations" / kind.folder / "page.html").read_text() for kind in (CELERY, RQ)
    )

    assert celery == rq
