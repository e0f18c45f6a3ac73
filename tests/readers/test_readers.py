"""npm's eventsource and undici, httpx-sse and sseclient-py: the promise holds in each of them.

One play for each server, with all readers on the same stream, each behind a proxy of its own; the
tests judge what each of them got.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.child import Child, new_folder
from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.event_stream import MessageEvent
from tests.exactly_once import Delivery, SentLog
from tests.proxy import CuttingProxy
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment

HERE = Path(__file__).parent
OWN = ["stream-open", "stream-reset", "stream-end"]
# Name, what is sent, and what a browser makes of it.
EVENTS = [
    ("message", "plain", "plain"),
    ("update", {"a": [1, "ü"]}, '{"a":[1,"ü"]}'),
    ("message", "two\nlines", "two\nlines"),
    ("message", "a\r\nb\rc\n", "a\nb\nc\n"),
    ("message", "", ""),
    ("message", "\n\n", "\n\n"),
    ("message", " : data: x", " : data: x"),
    ("message", "\u2028 \u2029 \x85 \x0b \x0c \x1c", "\u2028 \u2029 \x85 \x0b \x0c \x1c"),
    ("größe ✓", "\ufeff👩‍👩‍👧‍👦 é e\u0301", "\ufeff👩‍👩‍👧‍👦 é e\u0301"),
    ("message", "é" * 100_000, "é" * 100_000),
]
NAMES = sorted({name for name, *_ in EVENTS})
PYTHON = [sys.executable, str(HERE / "read.py")]
NODE = ["node", str(HERE / "read.mjs")]
READERS = {
    "eventsource": [*NODE, "eventsource", ",".join(OWN + NAMES)],
    "undici": [*NODE, "undici", ",".join(OWN + NAMES)],
    "httpx-sse": [*PYTHON, "httpx-sse"],
    "sseclient-py": [*PYTHON, "sseclient-py"],
}


@pytest.fixture(scope="session")
def packages() -> None:
    """What package-lock.json lists, installed anew when that has changed."""
    lock, installed = HERE / "package-lock.json", HERE / "node_modules" / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=HERE, check=True)


class Reading:
    """A reader at work, on its way through a proxy, and what it printed."""

    def __init__(self, name: str, site: Site, stream_id: str) -> None:
        self.proxy = CuttingProxy(site.server.port)
        url = f"{self.proxy.url}/events/{stream_id}"
        self.child = Child([*READERS[name], url], new_folder("reader") / "log")

    @property
    def events(self) -> list[MessageEvent]:
        *lines, _unfinished = self.child.output.split("\n")
        return [MessageEvent(*json.loads(line)) for line in lines if line.startswith("[")]

    @property
    def ids(self) -> list[str]:
        return [event.last_event_id for event in self.events if event.type not in OWN]

    def close(self) -> None:
        self.child.stop()
        self.proxy.close()


@dataclass
class Play:
    """What was sent, and who read it."""

    site: Site
    stream_id: str = "play"
    sent: SentLog = field(default_factory=SentLog)
    readings: dict[str, Reading] = field(default_factory=dict)
    # What each was given when the connections were cut.
    before_the_cut: dict[str, list[MessageEvent]] = field(default_factory=dict)

    def run(self) -> None:
        self.readings = {name: Reading(name, self.site, self.stream_id) for name in READERS}
        self._until(lambda reading: reading.events, "open")
        for name, data, seen in EVENTS:
            self._send(data, seen, name)
        self._until_all_is_read()

        before = {r: r.proxy.requests[0].keep_alives for r in self.readings.values()}
        self._until(lambda r: r.proxy.requests[0].keep_alives >= before[r] + 3, "keep-alives")
        self.before_the_cut = {name: r.events for name, r in self.readings.items()}

        for reading in self.readings.values():
            reading.proxy.cut_inside_the_next_event()
        for n in range(3):
            self._send(f"cut {n}", f"cut {n}")
        self._until_all_is_read()

        with redis.Redis.from_url(self.site.redis_url) as store:
            assert store.delete(f"{self.site.prefix}:{{{self.stream_id}}}:log") == 1
        self._send("after the reset", "after the reset")
        self._until_all_is_read()

        self.site.streams.end_stream(self.stream_id, "good bye")
        for reading in self.readings.values():
            assert reading.child.wait(15) == 0

    def _send(self, data: object, seen: str, name: str | None = None) -> None:
        name = None if name == "message" else name
        self.sent.returned(self.site.streams.send_event(self.stream_id, data, name), seen)

    def _until_all_is_read(self) -> None:
        last = self.sent.ids[-1]
        self._until(lambda reading: last in reading.ids, last)

    def _until(self, condition, what: str) -> None:
        for name, reading in self.readings.items():
            Deadline(15).until(
                lambda reading=reading: condition(reading),
                lambda name=name, reading=reading: (
                    f"{name}: {what}\n{reading.proxy.requests}\n{reading.child.output[-500:]}"
                ),
                every=0.05,
            )

    def close(self) -> None:
        for reading in self.readings.values():
            reading.close()
        self.site.close()


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn"])
def play(
    request: pytest.FixtureRequest, shared_servers: SharedServers, packages: None
) -> Iterator[Play]:
    kind = KINDS[request.param]
    url, prefix = shared_servers.url("valkey"), f"t-{uuid.uuid4().hex[:12]}"
    server = WebServer(
        kind, app_for(kind), workers=2, env=environment(url, prefix=prefix, **CONFIG)
    )
    play = Play(Site(server.start(), url, prefix))
    try:
        play.run()
        yield play
    finally:
        play.close()


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_event_comes_once_and_in_order(play: Play, name: str):
    reading = play.readings[name]

    Delivery(play.sent, reading.events).assert_exactly_once(resets=1)


def test_names_and_data_are_those_that_a_browser_sees(play: Play, name: str):
    seen = [event for event in play.readings[name].events if event.type not in OWN]

    assert [(event.type, event.data) for event in seen[: len(EVENTS)]] == [
        (event_name, data) for event_name, _, data in EVENTS
    ]


def test_keep_alives_are_no_events(play: Play, name: str):
    assert [event.type for event in play.before_the_cut[name]] == [
        "stream-open",
        *(event_name for event_name, *_ in EVENTS),
    ]


def test_comes_back_behind_the_last_whole_event(play: Play, name: str):
    requests = play.readings[name].proxy.requests

    assert requests[0].last_event_id == ""
    assert requests[1].last_event_id == play.before_the_cut[name][-1].last_event_id


def test_a_reset_comes_before_what_is_new(play: Play, name: str):
    events = play.readings[name].events
    [reset] = [event for event in events if event.type == "stream-reset"]
    at = events.index(reset)

    assert events[at + 1].data == "after the reset"
    assert json.loads(reset.data)["requested"] == events[at - 1].last_event_id


def test_the_end_is_seen_and_204_stops_it(play: Play, name: str):
    reading = play.readings[name]

    assert reading.events[-1].type == "stream-end"
    assert reading.events[-1].data == "good bye"
    assert reading.proxy.requests[-1].last_event_id == reading.events[-1].last_event_id
    assert [request.status for request in reading.proxy.requests] == [200, 200, 204]
