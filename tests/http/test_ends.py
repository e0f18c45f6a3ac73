"""Why each response ended: one line at DEBUG, whatever ended it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.browser import EventSource
from tests.deadline import Deadline
from tests.sites import Site

LOGGER = "streamy_redis.listener"
ENDED = re.compile(rf"^{LOGGER} DEBUG a response of '(.+)' ended: (\w+)$", re.MULTILINE)
# No other bound than that of a case must be met first.
PATIENT = {"write_timeout": 60.0, "max_backlog_bytes": 1 << 30}


def disconnect(site: Site, room: str, browser: EventSource) -> None:
    browser.close()


def end(site: Site, room: str, browser: EventSource) -> None:
    site.streams.end_stream(room)


def fill(site: Site, room: str, browser: EventSource) -> None:
    """More than fits into the sockets of a client that doesn't read."""
    browser.pause()
    for _ in range(15):
        site.streams.send_event(room, "x" * 1_000_000)


def grow_old(site: Site, room: str, browser: EventSource) -> None:
    browser.wait_for(lambda b: b.ends, 5, "the response has ended")


def stop(site: Site, room: str, browser: EventSource) -> None:
    site.server.terminate(within=5)


@dataclass(frozen=True)
class Way:
    """How a response comes to its end, and the configuration with which it does."""

    act: Callable[[Site, str, EventSource], None]
    config: dict[str, Any]


WAYS = {
    "disconnect": Way(disconnect, PATIENT),
    "end": Way(end, PATIENT),
    "overflow": Way(fill, {**PATIENT, "max_backlog_bytes": 200_000}),
    "timeout": Way(fill, {**PATIENT, "write_timeout": 0.5}),
    "lifetime": Way(grow_old, {**PATIENT, "max_lifetime": 1.0}),
    "shutdown": Way(stop, PATIENT),
}


# Flask's responses are handed over on gunicorn, whose gthread and sync workers wait for none.
CASES = [(reason, kind) for reason in WAYS for kind in ("gunicorn-gthread", "uvicorn")]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [*CASES, ("shutdown", "gunicorn-gevent"), ("shutdown", "gunicorn-sync")],
)
def test_the_reason_of_an_ended_response_is_logged_once(
    new_site: Callable[..., Site], room: str, reason: str, kind: str
):
    # Who comes back comes back later than the test looks.
    site = new_site(kind, debug=LOGGER, **{**WAYS[reason].config, "retry_interval": (20, 20)})
    browser = site.browser(room).wait_open()

    def ends() -> list[str]:
        return [why for of, why in ENDED.findall(site.server.output) if of == room]

    Deadline(0.1).stays(lambda: not ends(), ends)
    WAYS[reason].act(site, room, browser)

    Deadline(6).until(lambda: ends() or not site.server.child.running, "the end is told")
    # A client that goes when its response is over ends nothing.
    Deadline(0.3).stays(lambda: ends() == [reason], lambda: (ends(), site.server.output[-2000:]))


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "gunicorn-sync", "gunicorn-gevent"])
def test_close_hooks_run_when_the_server_stops(new_site: Callable[..., Site], room: str, kind: str):
    """Also those of responses whose worker knows nothing of them any more."""
    site = new_site(kind, debug="tests.apps.flask_app", retry_interval=(20, 20))
    site.browser(room, path="decorated").wait_open()

    site.server.terminate(within=5)

    assert site.server.output.count(f"closed {room!r}") == 1
