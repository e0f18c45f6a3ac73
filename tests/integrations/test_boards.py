"""Both boards, two workers each, and the job: kill -9 in the middle loses and repeats nothing."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from streamy_redis import StreamManager
from tests.browser import EventSource, ReadyState
from tests.child import Child
from tests.deadline import Deadline
from tests.exactly_once import Delivery
from tests.servers import RedisServer
from tests.web_servers import ROOT, ServerKind, WebServer, http

from .witness import Witness

INTEGRATIONS = ROOT / "integrations"
FLASK = ServerKind(
    "gunicorn-flask",
    ["gunicorn", "--bind", "127.0.0.1:{port}", "{app}"],
    is_asgi=False,
    is_up="Booting worker",
)
STARLETTE = ServerKind(
    "uvicorn-starlette",
    ["uvicorn", "--port", "{port}", "--workers", "{workers}", "--no-access-log", "{app}"],
    is_asgi=True,
    is_up="Application startup complete",
)


class Boards:
    """Two gunicorn workers, two uvicorn workers and a job, on a Redis of their own."""

    def __init__(self, redis_server: RedisServer, folder: Path) -> None:
        env = {
            "STREAMY_REDIS_URL": redis_server.url,
            "BOARD_ALLOW_KILL": "1",
            "BOARD_TICK_INTERVAL": "0.05",
            "WEB_CONCURRENCY": "2",
        }
        self.servers = [
            WebServer(
                kind, "app:app", workers=2, env=env, directory=INTEGRATIONS / kind.name, ready="/"
            ).start()
            for kind in (FLASK, STARLETTE)
        ]
        self.job = Child(
            [sys.executable, "job.py"],
            folder / "job.log",
            env={**env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            cwd=INTEGRATIONS / "board",
        )
        self.streams = StreamManager(redis_server.url)
        self._browsers: list[EventSource] = []

    def open(self, count: int, stream_id: str = "board") -> list[EventSource]:
        """That many pages on each of both boards."""
        browsers = [
            EventSource(f"{server.url}/stream/{page}?stream={stream_id}")
            for server in self.servers
            for page in range(1, count + 1)
        ]
        self._browsers += browsers
        for browser in browsers:
            browser.wait_open()
        return browsers

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()
        self.streams.close()
        self.job.stop()
        for server in self.servers:
            server.close()


@pytest.fixture
def boards(redis_server: RedisServer, tmp_path: Path) -> Iterator[Boards]:
    boards = Boards(redis_server, tmp_path)
    yield boards
    boards.close()


class Everywhere:
    """Senders in this process and in the workers of both servers, at once, with a stop."""

    def __init__(self, boards: Boards, stream_id: str) -> None:
        # What was sent: by this process, and through the servers (the text of their JSON).
        self.here: dict[str, str] = {}
        self.through: dict[str, str] = {}
        self.failures: list[str] = []
        self._boards = boards
        self._stream_id = stream_id
        self._stopping = threading.Event()
        senders = [self._here, *(self._through(server) for server in boards.servers)]
        self._threads = [
            threading.Thread(target=self._run, args=(send,), daemon=True) for send in senders
        ]
        for thread in self._threads:
            thread.start()

    def _here(self, number: int) -> None:
        data = f"from the test {number}"
        self.here[self._boards.streams.send_event(self._stream_id, data)] = data

    def _through(self, server: WebServer):
        def send(number: int) -> None:
            text = f"through {server.kind} {number}"
            try:
                answer = http.post(
                    f"{server.url}/send?stream={self._stream_id}", content=text, timeout=5
                )
                event_id = answer.json()["id"]
            except (httpx.HTTPError, KeyError, ValueError) as error:
                # Its worker was killed: whether the event was stored nobody knows.
                self.failures.append(repr(error))
                return
            self.through[event_id] = text

        return send

    def _run(self, send) -> None:
        number = 0
        while not self._stopping.wait(0.05):
            number += 1
            send(number)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()


def test_killing_any_worker_loses_and_repeats_nothing(boards: Boards, redis_server: RedisServer):
    witness = Witness(redis_server.connect(), "board")
    browsers = boards.open(4)
    everywhere = Everywhere(boards, "board")
    killed = []

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
    everywhere.stop()
    boards.job.stop()
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
