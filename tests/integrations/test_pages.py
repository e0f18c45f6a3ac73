"""The pages of the job apps and of the LLM app in a real Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from .job_stack import RQ, JobStack
from .llm_stack import PROMPT, AnswerStack, tokens

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
# On CI its absence is a failure.
pytestmark = pytest.mark.skipif(
    not CHROMIUM and "CI" not in os.environ, reason="no Chromium on PATH"
)


@pytest.fixture
def context() -> Iterator[Any]:
    """Tabs of one browser; an error in a page's script fails the test."""
    errors: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        context = browser.new_context(viewport={"width": 760, "height": 460})
        context.on("weberror", lambda error: errors.append(str(error.error)))
        yield context
        browser.close()
    assert errors == []


# Every value that the bar has shown since the job began.
RECORD = """
  seen = [];
  new MutationObserver(() => seen.push(bar.value)).observe(bar, { attributes: true });
"""


def says(page: Any, text: str) -> None:
    page.wait_for_function("text => state.textContent.includes(text)", arg=text, timeout=20_000)


def reaches(page: Any, percent: int) -> None:
    page.wait_for_function("percent => bar.value >= percent", arg=percent, timeout=20_000)


def test_the_progress_bar_moves_and_stops_waiting(context: Any, tmp_path: Path):
    # The page of both folders is the same.
    with JobStack(RQ, tmp_path / "worker.log", JOB_LEASE=2, JOB_STEP=0.2) as stack:
        page = context.new_page()
        page.goto(stack.web.url)
        page.evaluate(RECORD)
        page.click("#start")
        reaches(page, 20)
        page.screenshot(path=tmp_path / "running.png")
        # The address holds the job.
        second = context.new_page()
        second.goto(page.url)
        says(page, "Done.")
        seen = page.evaluate("seen")
        assert seen == sorted(seen)
        assert set(seen) == set(range(0, 101, 5))
        page.reload()
        for tab in (page, second):
            says(tab, "Done.")
            reaches(tab, 100)
            assert tab.inner_text("#percent") == "100 %"

        page.click("#fail")
        says(page, "Failed: ValueError.")

        page.bring_to_front()
        page.click("#start")
        says(page, "step 3 of 20")
        page.click("#cancel")
        says(page, "Cancelled.")

        page.click("#start")
        says(page, "step 3 of 20")
        stack.kill_worker()
        says(page, "Lost")
        assert page.is_disabled("#cancel")
        page.screenshot(path=tmp_path / "lost.png")

        # One that waits, and of which Redis then knows nothing any more.
        page.click("#start")
        says(page, "waiting for a worker")
        stack.redis_server.restart(empty=True)
        says(page, "No such job any more.")

        stack.redis_server.kill()
        page.click("#start")
        says(page, "No job was started")


def test_the_answer_is_whole_in_every_tab(context: Any, tmp_path: Path):
    with AnswerStack(tmp_path, pause=0.01) as stack:
        page = context.new_page()
        page.goto(stack.web.url)
        page.fill("#question", PROMPT)
        page.press("#question", "Enter")
        says(page, "Writing")
        page.wait_for_function("answer.textContent.length > 200", timeout=20_000)
        page.screenshot(path=tmp_path / "writing.png")
        for worker in stack.web.workers():
            worker.kill()
        second = context.new_page()
        second.goto(page.url, wait_until="commit")
        for tab in (page, second):
            says(tab, "Complete.")
            assert tab.inner_text("#answer").strip() == "".join(tokens()).strip()
        page.reload()
        says(page, "Complete.")
        assert page.input_value("#question") == PROMPT
        assert page.inner_text("#answer").strip() == "".join(tokens()).strip()
        page.screenshot(path=tmp_path / "complete.png", full_page=True)

        page.bring_to_front()
        page.fill("#question", "Something else")
        page.press("#question", "Enter")
        says(page, "Writing")
        page.click("#cancel")
        says(page, "Cancelled.")

        # One that waits, and of which Redis then knows nothing any more.
        stack.generator.stop()
        page.press("#question", "Enter")
        says(page, "Waiting for the model")
        stack.redis_server.restart(empty=True)
        says(page, "No such answer any more.")
