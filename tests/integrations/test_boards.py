"""Both boards, two workers each, and the job: kill -9 in the middle loses and repeats nothing."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from streamy_redis import StreamManager
from tests.browser import ReadyState
from tests.child import Child
from tests.deadline import Deadline
from tests.exactly_once import Delivery
from tests.ports import free_port
from tests.web_servers import ROOT, http

from .board_stack import Boards, Everywhere
from .foreign import assert_takes_its_own_pages_only
from .witness import Witness


def test_killing_any_worker_loses_and_repeats_nothing(boards: Boards):
    witness = Witness(boards.store, "board")
    browsers = boards.open(4)
    killed = []

    with Everywhere(boards, "board") as everywhere:
        for n in range(6):
            server = boards.servers[n % 2]
            Deadline(10).until(lambda server=server: len(server.workers()) == 2)
            # The one that serves most pages, so that every kill hits somebody.
            victim = max(server.workers(), key=open_pages)
            killed.append(victim.pid)
            victim.kill()
            seen = [len(browser.messages) for browser in browsers]
            Deadline(15).until(
                lambda seen=seen: all(
                    len(b.messages) > count + 10 for b, count in zip(browsers, seen, strict=True)
                ),
                lambda: browsers,
            )
    with boards.job_paused():
        log = witness.stop()
        for browser in browsers:
            browser.wait_for(lambda b: b.messages[-1].last_event_id == log.ids[-1], 10, "the last")
            Delivery(log, browser.events).assert_exactly_once()
            assert browser.state is ReadyState.OPEN
    assert len(set(killed)) == 6
    assert sum(browser.opens - 1 for browser in browsers) >= 6, "the kills were felt"
    # What every sender was told stands in the log, once, at the id that it was told.
    log_text = {i: text_of(data) for i, data in log.payloads.items()}
    for event_id, text in {**everywhere.here, **everywhere.through}.items():
        assert log_text[event_id] == text
    ticks = [text for text in log_text.values() if text.startswith("tick ")]
    assert ticks == [f"tick {n}" for n in range(first_tick(ticks), first_tick(ticks) + len(ticks))]
    assert len(set(log_text.values())) == len(log_text)


def open_pages(worker: psutil.Process) -> int:
    """Connections that a worker holds, more or less: enough to find the busier one."""
    return len(worker.net_connections("tcp"))


def first_tick(ticks: list[str]) -> int:
    return int(ticks[0].split()[1])


def text_of(data: str) -> str:
    """The text of a board's event, or the data itself."""
    try:
        return json.loads(data)["text"]
    except (ValueError, KeyError, TypeError):
        return data


def test_an_end_reaches_every_page_for_good_and_the_stream_can_start_anew(boards: Boards):
    browsers = boards.open(2, "room")
    flask, starlette = boards.servers
    http.post(f"{flask.url}/send?stream=room", content="hello").raise_for_status()

    assert http.post(f"{starlette.url}/end?stream=room").json() == {"ended": True}

    for browser in browsers:
        browser.wait_closed()
        assert [e.type for e in browser.events][1:] == ["message", "stream-end"]
        assert browser.statuses == [200, 204]
    refused = http.post(f"{flask.url}/send?stream=room", content="late")
    assert refused.status_code == 409
    assert http.post(f"{flask.url}/anew?stream=room").json() == {"deleted": True}
    (again, *_) = boards.open(1, "room")
    http.post(f"{starlette.url}/send?stream=room", content="new life").raise_for_status()
    assert "new life" in again.wait_for(1).data[0]


def test_a_job_reports_its_progress_on_both_boards(boards: Boards):
    browsers = boards.open(1, "work")

    http.post(f"{boards.servers[0].url}/job?stream=work").raise_for_status()

    for browser in browsers:
        browser.wait_for(lambda b: len(b.of_type("progress")) >= 3, 10, "three steps")
        steps = [json.loads(e.data)["step"] for e in browser.of_type("progress")]
        assert steps == list(range(len(steps)))


def test_the_same_page_is_served_by_both(boards: Boards):
    pages = [http.get(server.url).text for server in boards.servers]

    assert pages[0] == pages[1]
    for reference in re.findall(r'(?:src|href)="([^":]+)"', pages[0]):
        for server in boards.servers:
            assert http.get(f"{server.url}/{reference.lstrip('/')}").status_code == 200


@pytest.mark.parametrize("server", [0, 1], ids=["flask", "starlette"])
def test_only_its_own_pages_may_change_anything(boards: Boards, server: int):
    url = boards.servers[server].url

    for method, path, status in [
        ("POST", "/send?stream=own", 200),
        ("POST", "/end?stream=own", 200),
        ("POST", "/anew?stream=own", 200),
        ("POST", "/job?stream=own", 202),
        ("DELETE", "/feeds", 200),
        ("DELETE", "/workers/1", 403),
    ]:
        assert_takes_its_own_pages_only(url, method, path, status=status)


@pytest.mark.parametrize("server", [0, 1], ids=["flask", "starlette"])
def test_a_board_has_streams_and_connections_of_its_own_only(boards: Boards, server: int):
    url = boards.servers[server].url
    with (
        StreamManager(boards.redis_url) as others,
        others.subscribe("prod-orders") as orders,
    ):
        others.send_event("prod-orders", "first")
        feeds = boards.store.client_list(_type="pubsub")
        [theirs] = [feed["id"] for feed in feeds if feed["name"] == ""]

        http.post(f"{url}/end?stream=prod-orders").raise_for_status()
        http.post(f"{url}/anew?stream=prod-orders").raise_for_status()
        http.post(f"{url}/send?stream=prod-orders", content="forged").raise_for_status()
        http.delete(f"{url}/feeds").raise_for_status()

        others.send_event("prod-orders", "second")
        assert [next(orders).data, next(orders).data] == ["first", "second"]
        assert others.info("prod-orders").length == 2
        assert theirs in [feed["id"] for feed in boards.store.client_list(_type="pubsub")]
        assert others.delete_stream("prod-orders")


def test_the_kill_route_kills_this_server_s_workers_only(boards: Boards):
    flask, starlette = boards.servers
    victim = flask.workers()[0].pid
    stranger = starlette.workers()[0].pid

    assert http.delete(f"{flask.url}/workers/{stranger}").status_code == 403
    assert http.delete(f"{flask.url}/workers/{flask.child.pid}").status_code == 403
    assert http.delete(f"{flask.url}/workers/1").status_code == 403
    # It may be the very worker that answers: then there is no answer.
    with contextlib.suppress(httpx.TransportError):
        assert http.delete(f"{flask.url}/workers/{victim}").json() == {"killed": victim}

    Deadline(5).until(lambda: victim not in [w.pid for w in flask.workers()])
    assert psutil.pid_exists(stranger)


@pytest.mark.parametrize(
    ("folder", "server"),
    [
        ("gunicorn-flask", "gunicorn --bind 127.0.0.1:{port} app:app"),
        # Without workers: what started it has other children.
        ("gunicorn-flask", "flask --app app run --port {port}"),
        ("uvicorn-starlette", "uvicorn --port {port} app:app"),
    ],
)
def test_the_kill_route_spares_what_was_started_beside_the_server(
    boards: Boards, tmp_path: Path, folder: str, server: str
):
    port = free_port()
    # One process group for both, as a script's children have.
    command = f"sleep 60 & echo beside $!; {sys.executable} -m {server.format(port=port)}"
    script = Child(
        ["sh", "-c", f"{command} & wait"],
        tmp_path / "log",
        env={**boards.env, "PYTHONPATH": str(ROOT), "WEB_CONCURRENCY": "1"},
        cwd=ROOT / "integrations" / folder,
    )
    try:
        Deadline(20).until(lambda: is_up(port), lambda: script.output)
        [beside] = re.findall(r"beside (\d+)", script.output)

        answer = http.delete(f"http://127.0.0.1:{port}/workers/{beside}")

        assert answer.status_code == 403
        assert psutil.Process(int(beside)).status() != psutil.STATUS_ZOMBIE
    finally:
        script.stop()


def is_up(port: int) -> bool:
    try:
        return http.get(f"http://127.0.0.1:{port}/").status_code == 200
    except httpx.TransportError:
        return False
