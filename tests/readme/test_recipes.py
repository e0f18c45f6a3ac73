"""The recipes' apps and pages: on real servers, in a real Chromium."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from werkzeug.serving import make_server

from streamy_redis import Event, StreamConfig, StreamManager
from tests.browser import EventSource
from tests.child import Child
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import RedisServer

from .document import EXAMPLES
from .example import Example, Shell


@pytest.fixture
def metrics(redis_server: RedisServer, tmp_path: Path) -> Iterator[Child]:
    child = Child(
        [sys.executable, "metrics.py"],
        tmp_path / "metrics.log",
        env={"STREAMY_REDIS_URL": redis_server.url},
        cwd=EXAMPLES,
    )
    yield child
    child.stop()


@pytest.fixture
def module(
    request: pytest.FixtureRequest, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The example of this name, in this process."""
    monkeypatch.setenv("STREAMY_REDIS_URL", redis_server.url)
    monkeypatch.setenv("SECRET_KEY", "not the key of any real application")
    path = EXAMPLES / f"{request.param}.py"
    spec = importlib.util.spec_from_file_location(request.param, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Flask looks for templates beside the module of this name.
    monkeypatch.setitem(sys.modules, request.param, module)
    spec.loader.exec_module(module)
    with module.streams:
        yield module


def becomes(page: Any, expression: str, value: object) -> None:
    try:
        page.wait_for_function(f"value => ({expression}) === value", arg=value, timeout=10_000)
    except Exception as exc:
        raise AssertionError(f"{expression} is {page.evaluate(expression)!r}") from exc


@pytest.mark.parametrize("module", ["answer"], indirect=True)
def test_an_answer_is_whole_on_every_page(
    context: Any, module: ModuleType, redis_server: RedisServer
):
    tokens = [f"word {n} " for n in range(50)]
    with Example("answer", redis_server.url, like="flask_app", path="/answers/answer-7") as site:
        early = context.new_page()
        with early.expect_response("**/answers/*"):
            early.goto(f"{site.url}/static/answer.html")
        module.write_answer("answer-7", tokens)
        late = context.new_page()
        late.goto(f"{site.url}/static/answer.html")

        for page in (early, late):
            becomes(page, "text.textContent", "".join(tokens))
            becomes(page, "source.readyState", 2)


@pytest.mark.parametrize("module", ["answer"], indirect=True)
def test_an_answer_that_breaks_off_says_so(
    page: Any, module: ModuleType, redis_server: RedisServer
):
    def tokens() -> Iterator[str]:
        yield "so far"
        raise TimeoutError

    with Example("answer", redis_server.url, like="flask_app", path="/answers/answer-7") as site:
        with pytest.raises(TimeoutError):
            module.write_answer("answer-7", tokens())
        page.goto(f"{site.url}/static/answer.html")

        becomes(page, "text.textContent", "so far (failed)")


@pytest.mark.parametrize(
    ("rows", "status", "end"),
    [("1\n2\n", 0, ("done", 3)), ("1\nx\n", 1, ("failed", 1))],
    ids=["done", "failed"],
)
def test_the_import_ends_its_stream_whatever_happens(
    redis_server: RedisServer, tmp_path: Path, rows: str, status: int, end: tuple[str, int]
):
    shell = Shell(EXAMPLES, redis_server.url)
    shell.run("python import_job.py", stdin=rows, status=status)

    with StreamManager(redis_server.url) as streams:
        assert streams.info("import-7").ended
        events = streams.subscribe("import-7", replay="all")
        *progress, last = [(event.name, json.loads(event.data)) for event in events]
    assert progress[0] == ("progress", {"percent": 50})
    assert last == ("stream-end", {"reason": end[0], "total": end[1]})


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", free_port(), app, threaded=True)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("before", [["one"], []], ids=["with history", "without"])
@pytest.mark.parametrize("module", ["flask_notifications"], indirect=True)
def test_no_notification_is_missed_or_shown_twice(
    context: Any, module: ModuleType, before: list[str]
):
    signed = module.app.session_interface.get_signing_serializer(module.app)
    for number, text in enumerate(before, start=1):
        module.notify("ada", number, text)

    def meanwhile(route: Any) -> None:
        # When the page has been made, and its stream isn't open yet.
        module.notify("ada", 2, "<b>two</b>")
        route.continue_()

    with served(module.app) as url:
        context.add_cookies(
            [{"name": "session", "value": signed.dumps({"user": "ada"}), "url": url}]
        )
        page = context.new_page()
        page.route("**/notifications*", meanwhile, times=1)
        page.goto(url)
        becomes(page, "list.children.length", len(before) + 1)
        # Stored before the list was read, sent behind the cursor: that is on the page already.
        module.streams.send_event("user:ada", {"number": 2, "text": "again"})
        module.notify("ada", 3, "three")

        becomes(page, "list.lastElementChild.textContent", "three")
        assert page.locator("#list li").all_inner_texts() == [*before, "<b>two</b>", "three"]
        page.close()


@pytest.mark.parametrize("module", ["flask_notifications"], indirect=True)
def test_notifications_are_for_who_has_logged_in(module: ModuleType):
    client = module.app.test_client()

    assert client.get("/").status_code == client.get("/notifications").status_code == 403


def test_the_dashboard_begins_with_one_of_each(
    page: Any, redis_server: RedisServer, metrics: Child
):
    newest_two = StreamConfig(history_length=2)
    with (
        Example("dashboard", redis_server.url, like="fastapi_app", path="/dashboard") as site,
        StreamManager(redis_server.url, config=newest_two) as streams,
    ):
        Deadline(10).until(lambda: streams.info("dashboard").exists, lambda: metrics.output)
        metrics.stop()
        assert streams.info("dashboard").length == 2

        page.goto(f"{site.url}/static/dashboard.html")
        becomes(page, "isNaN(parseFloat(load.value)) || isNaN(parseInt(disk.value))", False)
        cursor = streams.info("dashboard").first_event_id
        for load in (7.5, 8.5):
            streams.send_events("dashboard", [Event(load, "load"), Event(50, "disk")])
        becomes(page, "`${load.value} ${disk.value}`", "8.5 50")

        # Who was away gets a reset, and the newest of each.
        with EventSource(site.stream, last_event_id=cursor) as browser:
            browser.wait_for(lambda b: b.of_type("disk"))
            assert [event.data for event in browser.of_type("load")] == ["8.5"]
            assert len(browser.of_type("stream-reset")) == 1
