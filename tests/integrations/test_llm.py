"""The answer of a language model: whole on every page, whatever is reloaded, cut or killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from streamy_redis import StreamManager
from tests.browser import EventSource
from tests.deadline import Deadline
from tests.web_servers import http

from .foreign import assert_takes_its_own_pages_only
from .llm_stack import PROMPT, AnswerStack, tokens


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnswerStack]:
    with AnswerStack(tmp_path_factory.mktemp("llm")) as stack:
        yield stack


@pytest.fixture
def stack(shared_stack: AnswerStack) -> AnswerStack:
    """One for all tests, with a generator that is at nothing."""
    if not shared_stack.generator.running:
        shared_stack.start_generator()
    Deadline(10).until(lambda: shared_stack.running() == 0, "nothing runs")
    return shared_stack


def shown(browser: EventSource) -> str:
    return "".join(event.data for event in browser.of_type("message"))


def writes(browser: EventSource) -> None:
    browser.wait_for(lambda b: len(shown(b)) > 200, 15, "it writes")


def end_of(browser: EventSource) -> dict[str, Any]:
    browser.wait_closed(30)
    assert browser.statuses[-1] == 204
    [end] = browser.of_type("stream-end")
    return json.loads(end.data)  # type: ignore[no-any-return]


def test_every_page_shows_the_whole_text_whenever_it_opens(stack: AnswerStack):
    answer = stack.ask()
    first = stack.page(answer)
    writes(first)
    # A second tab, or a reload.
    second = stack.page(answer)

    assert end_of(first) == end_of(second) == {"reason": "done"}
    late = stack.page(answer)
    assert end_of(late) == {"reason": "done"}
    for page in (first, second, late):
        assert [e.data for e in page.of_type("prompt")] == [PROMPT]
        assert shown(page) == "".join(tokens())
    # Joined: far fewer events than tokens.
    assert len(first.of_type("message")) < len(tokens()) / 2


def test_only_its_own_pages_ask_and_cancel_and_no_other_stream(stack: AnswerStack):
    url = stack.web.url
    with StreamManager(stack.redis_server.url) as streams:
        streams.send_event("prod-orders", "first")

        assert_takes_its_own_pages_only(url, "DELETE", "/answers/prod-orders", status=200)

        assert not streams.info("prod-orders").ended
    question = {"prompt": PROMPT}
    assert_takes_its_own_pages_only(url, "POST", "/answers", status=202, json=question)


def test_killed_web_workers_cost_no_text(stack: AnswerStack):
    answer = stack.ask()
    pages = [stack.page(answer) for _ in range(4)]
    for page in pages:
        writes(page)

    for worker in stack.web.workers():
        worker.kill()

    for page in pages:
        assert end_of(page) == {"reason": "done"}
        assert shown(page) == "".join(tokens())
        assert page.opens >= 2


def test_cancel_stops_the_producer_and_every_page(stack: AnswerStack):
    answer = stack.ask()
    pages = [stack.page(answer) for _ in range(2)]
    for page in pages:
        writes(page)
    assert stack.running() == 1

    cancelled = http.delete(f"{stack.web.url}/answers/{answer}").json()

    assert cancelled == {"cancelled": True}
    for page in pages:
        assert end_of(page) == {"reason": "cancelled"}
        assert "".join(tokens()).startswith(shown(page))
        assert shown(page) != "".join(tokens())
    Deadline(2).until(lambda: stack.running() == 0, "the producer has stopped")
    assert f"{answer} was cancelled" in stack.generator.output


def test_answers_are_generated_side_by_side(stack: AnswerStack):
    prompts = [f"question {n}" for n in range(5)]
    pages = {prompt: stack.page(stack.ask(prompt)) for prompt in prompts}

    for prompt, page in pages.items():
        assert end_of(page) == {"reason": "done"}
        assert shown(page) == "".join(tokens(prompt))
    Deadline(2).until(lambda: stack.running() == 0, "all have stopped")


def test_a_generator_that_waits_for_prompts_is_no_trouble(stack: AnswerStack):
    Deadline(10).until(stack.waits, "it waits for a prompt")

    # Longer than redis-py waits for a reply, unless told otherwise.
    Deadline(5.5).stays(
        lambda: "Redis is away" not in stack.generator.output, lambda: stack.generator.output
    )


def test_a_killed_generator_is_told_when_it_starts_again(stack: AnswerStack):
    page = stack.page(stack.ask())
    writes(page)

    stack.generator.stop()
    waiting = stack.ask("asked meanwhile")
    stack.start_generator()

    assert end_of(page) == {"reason": "lost"}
    assert "".join(tokens()).startswith(shown(page))
    second = stack.page(waiting)
    assert end_of(second) == {"reason": "done"}
    assert shown(second) == "".join(tokens("asked meanwhile"))


def test_a_prompt_that_is_lost_on_its_way_to_the_generator_is_told(stack: AnswerStack):
    Deadline(10).until(stack.waits, "it waits for a prompt")

    page = stack.page(stack.lose("never heard of"))

    assert end_of(page) == {"reason": "lost"}
    assert stack.generator.running
    assert end_of(stack.page(stack.ask())) == {"reason": "done"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_generator_ends_what_it_was_at(stack: AnswerStack, number: int):
    page = stack.page(stack.ask())
    writes(page)

    os.kill(stack.generator.pid, number)

    assert end_of(page) == {"reason": "cancelled"}
    assert stack.generator.wait(5) == 0
    assert "Traceback" not in stack.generator.output
    # The next one tidies up, and the reason stays.
    stack.start_generator()
    Deadline(10).until(lambda: stack.running() == 0)
    assert end_of(stack.page(page.url.rpartition("/")[2])) == {"reason": "cancelled"}


def test_a_generator_that_gives_up_on_redis_is_told_as_well(stack: AnswerStack):
    page = stack.page(stack.ask())
    writes(page)

    stack.redis_server.kill()
    Deadline(30).until(lambda: not stack.generator.running, lambda: stack.generator.output)
    stack.redis_server.start()
    stack.start_generator()

    assert end_of(page) == {"reason": "lost"}
    assert "".join(tokens()).startswith(shown(page))


def test_an_answer_that_nobody_knows_stops_the_page(stack: AnswerStack):
    page = stack.page("nonsense")

    page.wait_closed()

    assert page.statuses == [404]
