"""Libraries that people read event streams with: the promise holds in each of them.

One play for each server, with all readers side by side, each behind a proxy of its own; the tests
judge what each of them got.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import redis

from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.event_stream import MessageEvent
from tests.exactly_once import Delivery, SentLog
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment

from .readings import (
    EXAMPLES,
    HERE,
    NODE_MODULES,
    Browser,
    PageReading,
    ProcessReading,
    Reading,
    page_of,
)

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
# The streams: of everything that events can hold, of a model's answer, and of HTML.
PLAY, ANSWER, REPORT = "play", "answer", "report-7"

NODE = ["node", str(HERE / "read.mjs")]
PYTHON = [sys.executable, str(HERE / "read.py")]
LANGGRAPH = [sys.executable, str(EXAMPLES / "langgraph_client.py")]
ASK = [sys.executable, str(HERE / "ask.py")]
URL = f"{{url}}/events/{PLAY}"
PROCESSES = {
    "eventsource": [*NODE, "eventsource", ",".join(OWN + NAMES), URL],
    "undici": [*NODE, "undici", ",".join(OWN + NAMES), URL],
    "httpx-sse": [*PYTHON, "httpx-sse", URL],
    "sseclient-py": [*PYTHON, "sseclient-py", URL],
    "langgraph-sdk": [*LANGGRAPH, "{url}", ANSWER],
    "openai": [*ASK, "openai", "{url}", ANSWER],
    "httpx": [*ASK, "httpx", "{url}", ANSWER],
}
FETCH = page_of("fetch_event_source.js")
# Takes an id over at its line, before the event is complete.
WITH_ITS_OWN_CURSOR = "fetch-event-source, its own cursor"
# The pages, and how they ask.
PAGES = {
    "fetch-event-source": (FETCH, "GET"),
    "fetch-event-source, POST": (FETCH, "POST"),
    WITH_ITS_OWN_CURSOR: (FETCH.replace("fetch: (", "not_used: ("), "GET"),
    "event-source-polyfill": (page_of("event_source_polyfill.js"), "GET"),
    "reconnecting-eventsource": (page_of("reconnecting_eventsource.js"), "GET"),
    "htmx 2": (page_of("htmx_2.html"), "GET"),
    "htmx 4": (page_of("htmx_4.html"), "GET"),
}
ON_HTMX = ["htmx 2", "htmx 4"]
ASKING = ["openai", "httpx"]
RESUMING = [name for name in [*PROCESSES, *PAGES] if name not in ON_HTMX + ASKING]
OF_PLAY = [name for name in RESUMING if name != "langgraph-sdk"]
# Those that take a 503 for a reason to try again: an EventSource gives up.
TRYING_AGAIN = [
    *[name for name in PAGES if name.startswith("fetch-event-source")],
    *["reconnecting-eventsource", "htmx 4", "langgraph-sdk"],
]
STOPPED_BY_204 = ["eventsource", "undici", "httpx-sse", "sseclient-py"]
TOLD = [name for name in [*PROCESSES, *PAGES] if name not in STOPPED_BY_204 + ASKING]
# The examples without that by which they are told of the end.
UNTOLD = {
    name: PAGES[name][0].replace(told, untold).replace(REPORT, f"{REPORT}?replay=all")
    for name, told, untold in [
        ("reconnecting-eventsource", "source.close()", "{}"),
        ("htmx 2", ' sse-close="stream-end"', ""),
        ("htmx 4", ' hx-sse:close="stream-end"', ""),
        # A clean end is one to it; but who was cut off just behind the end comes with its cursor.
        ("fetch-event-source", 'cursor = ""', "cursor = end"),
    ]
}


@pytest.fixture(scope="session")
def packages() -> None:
    """What package-lock.json lists, installed anew when that has changed."""
    lock, installed = HERE / "package-lock.json", NODE_MODULES / ".package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=HERE, check=True)


@dataclass
class Play:
    """What was sent, and who read it."""

    site: Site
    browser: Browser
    sent: dict[str, SentLog] = field(
        default_factory=lambda: {PLAY: SentLog(), ANSWER: SentLog(), REPORT: SentLog()}
    )
    texts: list[str] = field(default_factory=list)
    readings: dict[str, Reading] = field(default_factory=dict)
    # What each was given when the connections were cut.
    before_the_cut: dict[str, list[MessageEvent]] = field(default_factory=dict)

    def run(self) -> None:
        self._open()
        for name, data, seen in EVENTS:
            self._send(PLAY, data, seen, name)
        self._send_to_all("first")
        self._until_all_is_read()
        before = {r: r.requests[0].keep_alives for r in self._all}
        self._until(lambda r: r.requests[0].keep_alives >= before[r] + 3, "keep-alives")
        self.before_the_cut = {name: list(r.events) for name, r in self.readings.items()}

        self._lose_connections(self._cut_inside_an_event)
        self._lose_connections(self._cut_before_its_end)
        self._lose_connections(lambda: self._end_workers(signal.SIGTERM))
        self._lose_connections(lambda: self._end_workers(signal.SIGKILL))
        self._lose_the_history()
        for stream_id in self.sent:
            self.site.streams.end_stream(stream_id, {"reason": "done"})
        for reading in self._all:
            if isinstance(reading, ProcessReading):
                assert reading.child.wait(20) == 0, reading.describe()
        self._until(lambda r: r.events[-1].type == "stream-end", "the end", OF_PLAY)

    @property
    def _all(self) -> list[Reading]:
        return list(self.readings.values())

    def _open(self) -> None:
        server = self.site.server
        for name, command in PROCESSES.items():
            self.readings[name] = ProcessReading(server, command)
        for name, (body, method) in PAGES.items():
            self.readings[name] = PageReading(
                server,
                self.browser,
                body,
                url=f"/events/{PLAY}",
                method=method,
                names=NAMES,
            )
        self._until(lambda reading: reading.is_open, "open")
        self._until(lambda reading: reading.events, "stream-open", RESUMING)

    def _send(self, stream_id: str, data: object, seen: str, name: str | None = None) -> None:
        name = None if name == "message" else name
        event_id = self.site.streams.send_event(stream_id, data, name)
        self.sent[stream_id].returned(event_id, seen)

    def _send_to_all(self, text: str) -> None:
        self.texts.append(text)
        chunk = {"choices": [{"index": 0, "delta": {"content": f"{text} "}}]}
        self._send(PLAY, text, text)
        self._send(ANSWER, chunk, json.dumps(chunk, separators=(",", ":")))
        self._send(REPORT, f"<li>{text}</li>", text)

    def _lose_connections(self, lose: Callable[[], None]) -> None:
        """Each reader loses its connection at least once, and gets another."""
        before = {reading: len(reading.requests) for reading in self._all}
        lose()
        self._until(lambda r: len(r.requests) > before[r] and r.is_open, "back")
        self._send_to_all("back")
        self._until_all_is_read()

    def _cut_inside_an_event(self) -> None:
        for name, reading in self.readings.items():
            reading.proxy.cut_inside_the_next_event()
            reading.proxy.is_busy = name in TRYING_AGAIN
        for n in range(3):
            self._send_to_all(f"cut {n}")

    def _cut_before_its_end(self) -> None:
        for name, reading in self.readings.items():
            if name == WITH_ITS_OWN_CURSOR:
                reading.proxy.cut()
            else:
                reading.proxy.cut_before_the_end_of_the_next_event()
        for n in range(3):
            self._send_to_all(f"late cut {n}")

    def _end_workers(self, number: int) -> None:
        """One after the other, while events come; others take over."""
        server = self.site.server
        up = server.output.count(server.kind.is_up)
        workers = server.workers()
        for worker in workers:
            self._send_to_all(f"before {number}")
            worker.send_signal(number)
            self._send_to_all(f"behind {number}")
        Deadline(20).until(
            lambda: server.output.count(server.kind.is_up) >= up + len(workers), server.output
        )

    def _lose_the_history(self) -> None:
        with redis.Redis.from_url(self.site.redis_url) as store:
            assert store.delete(f"{self.site.prefix}:{{{PLAY}}}:log") == 1
        self._send(PLAY, "after the reset", "after the reset")
        self._until_all_is_read()

    def _until_all_is_read(self) -> None:
        last = self.sent[PLAY].ids[-1]
        self._until(lambda r: last in [e.last_event_id for e in r.events], last, OF_PLAY)
        self._until(lambda r: len(r.items) >= len(self.texts), self.texts[-1], ON_HTMX)

    def _until(
        self, condition: Callable[[Any], object], what: str, names: list[str] | None = None
    ) -> None:
        for name in names or self.readings:
            reading = self.readings[name]
            Deadline(20).until(
                lambda reading=reading: condition(reading),
                lambda name=name, reading=reading: f"{name}: {what}\n{reading.describe()}",
                every=0.05,
            )

    def close(self) -> None:
        for reading in self._all:
            reading.close()
        self.site.close()


@pytest.fixture(scope="module")
def browser(chromium: Any) -> Iterator[Browser]:
    browser = Browser(chromium)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def new_play(
    shared_servers: SharedServers, browser: Browser, packages: None
) -> Iterator[Callable[[str], Play]]:
    plays: list[Play] = []

    def new_play(name: str) -> Play:
        kind = KINDS[name]
        url, prefix = shared_servers.url("valkey"), f"t-{uuid.uuid4().hex[:12]}"
        env = environment(url, prefix=prefix, **CONFIG)
        server = WebServer(kind, app_for(kind), workers=2, env=env)
        plays.append(Play(Site(server.start(), url, prefix), browser))
        return plays[-1]

    yield new_play
    for play in plays:
        play.close()


@pytest.fixture(scope="module", params=["gunicorn-gthread", "uvicorn"])
def play(request: pytest.FixtureRequest, new_play: Callable[[str], Play]) -> Play:
    play = new_play(request.param)
    play.run()
    return play


def as_read_by(name: str, data: str) -> str:
    """fetch-event-source leaves out empty lines in front, and a byte order mark."""
    if name.startswith("fetch-event-source"):
        return data.lstrip("\n").removeprefix("\ufeff")
    return data


@pytest.mark.parametrize("name", OF_PLAY)
def test_every_event_comes_once_and_in_order(play: Play, name: str):
    read = SentLog()
    for event_id, data in play.sent[PLAY].payloads.items():
        read.returned(event_id, as_read_by(name, data))

    Delivery(read, play.readings[name].events).assert_exactly_once(resets=1)


@pytest.mark.parametrize("name", OF_PLAY)
def test_names_and_data_are_those_that_a_browser_sees(play: Play, name: str):
    seen = [event for event in play.readings[name].events if event.type not in OWN]

    assert [(event.type, event.data) for event in seen[: len(EVENTS)]] == [
        (event_name, as_read_by(name, data)) for event_name, _, data in EVENTS
    ]


@pytest.mark.parametrize("name", RESUMING)
def test_keep_alives_are_no_events(play: Play, name: str):
    assert [event.type for event in play.before_the_cut[name]] == [
        "stream-open",
        *(event_name for event_name, *_ in EVENTS if name in OF_PLAY),
        "" if name == "langgraph-sdk" else "message",
    ]


@pytest.mark.parametrize("name", RESUMING)
def test_comes_back_behind_the_last_whole_event(play: Play, name: str):
    requests = play.readings[name].requests

    assert requests[0].last_event_id == ""
    assert requests[1].last_event_id == play.before_the_cut[name][-1].last_event_id


@pytest.mark.parametrize("name", OF_PLAY)
def test_a_reset_comes_before_what_is_new(play: Play, name: str):
    events = play.readings[name].events
    [reset] = [event for event in events if event.type == "stream-reset"]
    at = events.index(reset)

    assert events[at + 1].data == "after the reset"
    assert json.loads(reset.data)["requested"] == events[at - 1].last_event_id


@pytest.mark.parametrize("name", TRYING_AGAIN)
def test_a_503_doesn_t_stop_it(play: Play, name: str):
    _, refused, again, *_ = play.readings[name].requests

    assert (refused.status, again.status) == (503, 200)
    assert refused.last_event_id == again.last_event_id != ""


def test_langgraph_gets_every_part_once_and_in_order(play: Play):
    parts = [
        MessageEvent(event.type, json.dumps(event.data, separators=(",", ":")), event.last_event_id)
        for event in play.readings["langgraph-sdk"].events
    ]

    Delivery(play.sent[ANSWER], parts).assert_exactly_once()


@pytest.mark.parametrize("name", ON_HTMX)
def test_htmx_shows_every_item_once_and_in_order(play: Play, name: str):
    assert play.readings[name].items == play.texts


@pytest.mark.parametrize("name", ASKING)
def test_who_cannot_resume_gets_an_error_and_never_half_an_answer(play: Play, name: str):
    *broken, (last, text) = play.readings[name].lines

    assert {kind for kind, _ in broken} == {"broke off"}
    assert len(broken) >= 4, "two cuts, SIGTERM, SIGKILL"
    assert (last, text) == ("whole", "".join(f"{text} " for text in play.texts))


@pytest.mark.parametrize("name", STOPPED_BY_204)
def test_204_stops_it(play: Play, name: str):
    reading = play.readings[name]

    assert reading.events[-1].type == "stream-end"
    assert reading.events[-1].data == '{"reason":"done"}'
    assert reading.requests[-1].last_event_id == reading.events[-1].last_event_id
    assert reading.statuses.count(204) == 1


@pytest.fixture
def untold(play: Play) -> Iterator[dict[str, PageReading]]:
    """Pages that come late, to ended streams, and are told nothing of the end."""
    end = play.site.streams.info(PLAY).last_event_id
    readings = {
        name: PageReading(play.site.server, play.browser, body, url=f"/events/{PLAY}", end=end)
        for name, body in UNTOLD.items()
    }
    yield readings
    for reading in readings.values():
        reading.close()


# Nothing in it is a server's affair.
@pytest.mark.parametrize("play", ["uvicorn"], indirect=True)
def test_who_is_told_of_the_end_asks_no_more_and_who_is_not_for_ever(
    play: Play, untold: dict[str, PageReading]
):
    for name, reading in untold.items():
        Deadline(20).until(
            lambda reading=reading: reading.statuses.count(204) >= 3,
            lambda name=name, reading=reading: f"{name}\n{reading.describe()}",
            every=0.05,
        )

    assert [name for name in TOLD if 204 in play.readings[name].statuses] == []
    # Without a cursor: a new reader to the server, to which all is shown again.
    assert untold["htmx 2"].statuses[:5] == [200, 204, 200, 204, 200]
    assert untold["htmx 2"].items[: 2 * len(play.texts)] == play.texts * 2
