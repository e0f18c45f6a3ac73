"""The pages of the job apps and of the LLM app in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deadline import Deadline
from tests.proxy import CuttingProxy

from .job_stack import RQ, JobStack
from .llm_stack import PROMPT, AnswerStack, tokens

# Every value that the bar has shown since the job began.
RECORD = """
  seen = [];
  new MutationObserver(() => seen.push(bar.value)).observe(bar, { attributes: true });
"""


def says(page: Any, text: str) -> None:
    page.wait_for_function("text => state.textContent.includes(text)", arg=text, timeout=20_000)


def reaches(page: Any, percent: int) -> None:
    page.wait_for_function("percent => bar.value >= percent", arg=percent, timeout=20_000)


def test_the_progress_bar_moves_and_stops_waiting(
    context: Any, tmp_path: Path, picture: Callable[..., None]
):
    # The page of both folders is the same.
    with JobStack(RQ, tmp_path / "worker.log", JOB_LEASE=2, JOB_STEP=0.2) as stack:
        page = context.new_page()
        page.goto(stack.web.url)
        page.evaluate(RECORD)
        page.click("#start")
        reaches(page, 20)
        picture(page, "job", width=720, height=320)
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

        # One that waits, and of which Redis then knows nothing any more.
        page.click("#start")
        says(page, "waiting for a worker")
        stack.redis_server.restart(empty=True)
        says(page, "No such job any more.")

        # The same of a page that is opened while Redis is away.
        page.click("#start")
        says(page, "waiting for a worker")
        stack.redis_server.kill()
        with page.expect_response("**/events", timeout=20_000):
            page.reload()
        stack.redis_server.start()
        says(page, "No such job any more.")

        stack.redis_server.kill()
        page.click("#start")
        says(page, "No job was started")


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnswerStack]:
    with AnswerStack(tmp_path_factory.mktemp("answers"), pause=0.01) as stack:
        yield stack


def ask(page: Any, prompt: str) -> None:
    """Put the question in the page, and wait until the answer has begun."""
    page.fill("#question", prompt)
    page.press("#question", "Enter")
    says(page, "Writing")
    page.wait_for_function("answer.textContent.length > 200", timeout=20_000)


def test_the_answer_is_whole_in_every_tab_whatever_is_cut_or_killed(
    context: Any, answers: AnswerStack, picture: Callable[..., None]
):
    whole = "".join(tokens()).strip()
    with CuttingProxy(answers.web.port) as proxy:
        page = context.new_page()
        page.goto(proxy.url)
        ask(page, PROMPT)
        picture(page, "answer", width=720, height=400)

        proxy.cut_inside_the_next_event()
        Deadline(10).until(lambda: [r.status for r in proxy.requests] == [200, 200])
        assert proxy.requests[1].last_event_id
        for worker in answers.web.workers():
            worker.kill()
        others = [context.new_page() for _ in range(2)]
        for other in others:
            other.goto(page.url, wait_until="commit")
        for tab in (page, *others):
            says(tab, "Complete.")
            assert tab.inner_text("#answer").strip() == whole
        page.reload()
        says(page, "Complete.")
        assert page.input_value("#question") == PROMPT
        assert page.inner_text("#answer").strip() == whole


def test_a_cancelled_answer_says_so(context: Any, answers: AnswerStack):
    page = context.new_page()
    page.goto(answers.web.url)
    ask(page, "Something else")

    page.click("#cancel")

    says(page, "Cancelled.")


def test_an_answer_whose_beginning_is_gone_says_so(context: Any, answers: AnswerStack):
    page = context.new_page()
    page.goto(answers.web.url)
    ask(page, "Who forgets?")

    answers.lose_history(page.url.partition("#")[2])

    page.wait_for_function("answer.textContent.startsWith('[…] ')", timeout=10_000)
    page.click("#cancel")
    says(page, "Cancelled.")
    rest = page.inner_text("#answer").removeprefix("[…] ").strip()
    assert rest
    assert rest in "".join(tokens("Who forgets?"))
    assert not "".join(tokens("Who forgets?")).startswith(rest)


def test_an_answer_of_which_nothing_is_left_is_not_waited_for(context: Any, tmp_path: Path):
    with AnswerStack(tmp_path) as stack:
        stack.generator.stop()
        page = context.new_page()
        page.goto(stack.web.url)
        page.fill("#question", PROMPT)
        page.press("#question", "Enter")
        says(page, "Waiting for the model")
        stack.redis_server.kill()
        second = context.new_page()
        with second.expect_response("**/answers/*", timeout=20_000):
            second.goto(page.url)

        stack.redis_server.restart(empty=True)

        for tab in (page, second):
            says(tab, "No such answer any more.")
