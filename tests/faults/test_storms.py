"""Everybody at once: a stampede of newcomers, and of clients that have much to catch up on.

What only listens has no connection that could be refused, and no history to resume: here it is
the browser without a memory that the checker has to catch.
"""

from __future__ import annotations

import contextlib
import math
import time
import uuid

import pytest
import redis

from streamy_redis.config import PAGE_EVENTS
from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog, position_of

from .crowd import OPENED, Crowd, CrowdClient
from .naive import ForgetfulBrowser
from .senders import Flood
from .stage import Scene, Stage

pytestmark = pytest.mark.heavy

COMMANDS_A_CONNECT = 3


def commands(store: redis.Redis) -> int:
    """What Redis was asked so far, without what the scripts call in turn."""
    asked = ("evalsha", "eval", "subscribe", "unsubscribe", "ping")
    stats = store.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in asked)


def asked_of_redis(scene: Scene) -> int:
    """Commands so far, without the sends of the scene's own senders."""

    def count() -> int:
        return commands(scene.admin) - len(scene.sender.took) - len(scene.other.took)

    # A send under way may be in one of both counts only.
    return scene.paused(lambda: scene.other.paused(count))


def asked_from_now_on(scene: Scene) -> int:
    """The count to start from, once the channels of other scenes are unsubscribed."""
    own = {scene.channel.encode(), f"{scene.stage.prefix}:{{{scene.beside}}}".encode()}
    Deadline(10).until(
        lambda: set(scene.admin.pubsub_channels(f"{scene.stage.prefix}:*")) <= own,
        lambda: scene.admin.pubsub_channels(f"{scene.stage.prefix}:*")[:5],
        every=0.05,
    )
    return asked_of_redis(scene)


def commands_of_resumes(connects: int, clients: int, sent: SentLog) -> int:
    """The most that so many connects may cost, of clients that read all that was sent."""
    further_pages = math.ceil(len(sent) / PAGE_EVENTS) - 1
    return connects * COMMANDS_A_CONNECT + clients * further_pages


def stampede(port: int, paths: list[str], timeout: float) -> tuple[float, float]:
    """One request for each path, all at once; seconds until all had asked, and been answered.

    AssertionError when one isn't answered with 200 and an open stream in time.
    """
    start = time.monotonic()
    with contextlib.closing(Crowd()) as crowd:
        for path in paths:
            crowd.add(CrowdClient(port, path))
        asked = time.monotonic() - start
        crowd.read_until(lambda client: client.has(OPENED), timeout)
        assert {tuple(client.statuses) for client in crowd.clients} == {(200,)}
        return asked, time.monotonic() - start


@pytest.mark.parametrize(
    ("site", "streams"),
    [(0, "a stream each"), (1, "one stream"), (1, "a stream each")],
    ids=["gunicorn-gthread, a stream each", "uvicorn, one stream", "uvicorn, a stream each"],
)
def test_1000_newcomers_within_a_second(stage: Stage, site: int, streams: str):
    """On 40 threads as well as on an event loop: a stream takes no thread.

    A bare `listen()` loop has no clients that could come; nothing naive to catch.
    """
    newcomers(stage, stage.sites[site].server.port, streams)


def test_1000_newcomers_within_a_second_on_one_thread():
    stage = Stage(("gunicorn-sync",))
    try:
        newcomers(stage, stage.sites[0].server.port, "a stream each")
    finally:
        stage.close()


def newcomers(stage: Stage, port: int, streams: str) -> None:
    with stage.scene(rate=20) as scene:
        room = uuid.uuid4().hex[:8]
        count = 1000
        numbers = [0] * count if streams == "one stream" else range(count)
        paths = [f"/events/{room}-{number}?n={n}" for n, number in enumerate(numbers)]
        before = asked_from_now_on(scene)

        asking, took = stampede(port, paths, timeout=15)

        asked = asked_of_redis(scene) - before
        print(f"{count} asked in {asking:.2f} s, were served in {took:.2f} s; {asked} commands")
        assert asking < 1
        assert took < 5, f"{took:.1f} s"
        assert asked <= COMMANDS_A_CONNECT * count, f"{asked / count:.1f} a connect"
        scene.finish()
        assert scene.is_connected()


def test_50_resume_5000_events_each_while_1000_a_second_go_on(stage: Stage):
    """Each has everything, once and in order, while it goes on."""
    behind = 5000
    with stage.scene(clients=1, rate=20) as scene, contextlib.closing(Crowd()) as crowd:
        cursor = scene.browsers[0].of_type("stream-open")[0].last_event_id
        with contextlib.closing(ForgetfulBrowser(scene.browsers[0].url, start=False)) as forgetful:
            for _ in range(behind // 250):
                # No faster than the backlogs of those who are live.
                scene.burst(250)
                scene.wait_complete(5)
            flood = Flood(scene.burst, rate=1000)
            before = asked_from_now_on(scene)
            start = time.monotonic()
            with flood.going_on():
                for n in range(50):
                    site = stage.sites[n % 2]
                    path = site.server.stream_url("events", scene.room, n=n)
                    path = path.removeprefix(site.server.url)
                    crowd.add(CrowdClient(site.server.port, path, cursor))
                newest = scene.sender.sent.ids[-1].encode()
                crowd.read_until(lambda client: client.has(b"id: " + newest), 30)
                took = time.monotonic() - start
                # And they stay with it, for as long as a rate needs.
                Deadline(10).until(lambda: flood.calls >= 150)
                newest = scene.sender.sent.ids[-1].encode()
                crowd.read_until(lambda client: client.has(b"id: " + newest), 10)
                went_on = time.monotonic() - start
            asked = asked_of_redis(scene) - before - flood.calls
            most = commands_of_resumes(crowd.connects, len(crowd.clients), scene.sender.sent)
            print(
                f"50 had {behind} after {took:.2f} s, {crowd.connects} connects, {asked} commands "
                f"of {most}; {flood.calls / went_on * 10:.0f} events a second"
            )
            forgetful.start().wait_for(10)

        assert flood.calls * 10 / went_on > 900, "1,000 a second went on"
        assert asked <= most, f"{asked} commands, {most} allowed"
        # First: to look at 250,000 events holds up those who note when they hear something.
        scene.finish()
        payloads = scene.sender.sent.payloads
        owed = [(event_id, payloads[event_id]) for event_id in scene.sender.sent.ids]
        owed = owed[owed_from(owed, cursor) :]
        for client in crowd.clients:
            had = client.all_events()
            assert len(had) >= behind
            assert had == owed[: len(had)], "each once and in order"
            assert set(client.statuses) == {200}
            assert not any(b"stream-reset" in answer for answer in client.answers)
        # What has no memory begins with what is new: nothing of the 5,000.
        remembered = Delivery(scene.sender.sent, [scene.browsers[0].events[0], *forgetful.messages])
        assert len(remembered.missing) >= behind, "the checker has no teeth"


def owed_from(events: list[tuple[str, str]], cursor: str) -> int:
    """The index of the first that is newer than the cursor."""
    return sum(position_of(event_id) <= position_of(cursor) for event_id, _ in events)


def test_everybody_resumes_from_the_start_while_events_go_on(stage: Stage):
    """8 clients a site with 1,600 events each here; more of both in the soak."""
    behind, clients = 1600, 8
    with stage.scene(rate=50) as scene:
        cursor = scene.browsers[0].of_type("stream-open")[0].last_event_id
        for _ in range(behind // 200):
            # No faster than the backlogs of those who are live.
            scene.burst(200)
            scene.wait_complete(5)
        before = asked_from_now_on(scene)
        forgetful = ForgetfulBrowser(scene.browsers[0].url).wait_open()

        late = [
            site.browser(scene.room, last_event_id=cursor)
            for site in stage.sites
            for _ in range(clients)
        ]
        for browser in late:
            browser.wait_for(behind, 20)
        asked = asked_of_redis(scene) - before
        forgetful.close()

        connects = sum(browser.connects for browser in late)
        most = commands_of_resumes(connects, len(late), scene.sender.sent)
        print(f"{connects} connects, {asked} commands of {most}")
        assert asked <= most, f"{asked} commands, {most} allowed"
        scene.browsers += late
        sent = scene.finish()
        # What has no memory begins with what is new: nothing of the 1,600.
        remembered = Delivery(sent, [scene.browsers[0].events[0], *forgetful.messages])
        assert len(remembered.missing) >= behind, "the checker has no teeth"
        assert scene.is_connected()
        assert all(b"stream-reset" not in browser.body for browser in late)


def test_a_reload_of_every_page_at_once(scene: Scene):
    """All clients are cut in one moment, again and again."""
    forgetful = ForgetfulBrowser(scene.browsers[0].url).wait_open()
    for n in range(4):
        for browser in [*scene.browsers, *scene.bystanders, forgetful]:
            browser.cut(reset=n % 2 == 0)
        scene.burst(10)
        for browser in [*scene.browsers, *scene.bystanders]:
            browser.wait_for(lambda b, n=n: b.opens >= n + 2, 5, "it is back")
    scene.wait_complete(2)
    forgetful.close()
    sent = scene.finish()
    for browser in scene.browsers:
        assert browser.connects >= 5
    assert Delivery(sent, forgetful.events).missing, "the checker has no teeth"
