"""A replica takes over behind one address: with everything, or without the newest acknowledged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import redis

from tests.browser import EventSource
from tests.deadline import Deadline
from tests.exactly_once import Delivery

from .naive import NaivePoller
from .stage import Scene, Stage, has_come_to
from .standby import Standby
from .test_many_senders import program, record

# Seconds until everybody has what is sent from now on.
HEALED = 2.0


@pytest.fixture
def standby(stage: Stage) -> Iterator[Standby]:
    with stage.standby() as standby:
        yield standby


@contextlib.contextmanager
def behind_one_address(stage: Stage, clients: int = 2) -> Iterator[Scene]:
    """All senders and clients find the server that took over."""
    with stage.scene(
        clients=clients, sender_url=stage.senders.url, naive_url=stage.unharmed.url
    ) as scene:
        yield scene


def of_each_site(scene: Scene, number: int) -> list[EventSource]:
    """Of the clients in the room, one that each site has."""
    return [
        [b for b in scene.browsers if b.url.startswith(site.server.url)][number]
        for site in scene.stage.sites
    ]


def leave(browsers: list[EventSource]) -> None:
    for browser in browsers:
        browser.leave()


def come_back(browsers: list[EventSource]) -> None:
    for browser in browsers:
        browser.come_back()


def send(scene: Scene, count: int) -> None:
    """Until the sender has sent so many more."""
    wanted = len(scene.sender.sent) + count
    Deadline(5).until(lambda: len(scene.sender.sent) >= wanted)


def send_what_is_lost(scene: Scene, standby: Standby, *, but: list[EventSource]) -> None:
    """Acknowledged, not replicated, and delivered to those who are there."""
    standby.lag()
    send(scene, 20)
    ids = scene.burst(30)
    for browser in scene.browsers:
        if browser not in but:
            browser.wait_for(lambda b: has_come_to(b, ids[-1]), 5, "what will be lost")


def heals(scene: Scene, *, but: list[EventSource]) -> None:
    """All have what is sent from now on, except those who are away."""
    ids = scene.burst(10)
    deadline = Deadline(HEALED)
    for browser in scene.browsers:
        if browser not in but:
            deadline.until(lambda b=browser: has_come_to(b, ids[-1]), browser)


def test_nobody_notices_a_failover_that_lost_nothing(stage: Stage, standby: Standby):
    with behind_one_address(stage) as scene:
        behind = of_each_site(scene, 1)
        leave(behind)
        with scene.redis_away():
            scene.naive.may_restart.clear()
            scene.fail_over_with_everything(standby)
            scene.burst(10)
            come_back(behind)
            scene.naive.may_restart.set()
            scene.wait_complete(HEALED)
        sent = scene.finish()

        assert all(b.connects == 1 for b in [*of_each_site(scene, 0), *scene.bystanders])
        scene.assert_stored_once()
        assert scene.naive.assert_caught(sent).missing


@contextlib.contextmanager
def naive_poller(scene: Scene) -> Iterator[NaivePoller]:
    """It finds the new master as everybody does, and asks for what is newer than what it had."""
    with redis.Redis.from_url(scene.stage.unharmed.url) as store:
        opened = scene.browsers[0].of_type("stream-open")[0]
        yield NaivePoller(store, scene.log_key, start=opened.last_event_id)


def test_each_client_is_told_once_of_what_a_failover_lost(stage: Stage, standby: Standby):
    """Those ahead of the new master, those behind it, those who don't read, and the absent."""
    with behind_one_address(stage, clients=4) as scene, naive_poller(scene) as naive:
        behind, absent, slow = (of_each_site(scene, n) for n in (1, 2, 3))
        leave(absent)
        send(scene, 10)
        leave(behind)
        for browser in slow:
            browser.pause()
        send(scene, 10)
        with scene.redis_away():
            naive.poll()
            send_what_is_lost(scene, standby, but=[*behind, *absent, *slow])
            scene.fail_over(standby)
            come_back(behind)
            heals(scene, but=[*absent, *slow])
        for browser in slow:
            browser.go_on()
        send(scene, 20)
        come_back(absent)
        sent = scene.finish(resets=1)

        assert len(sent.losses) == 1
        for browser in of_each_site(scene, 0):
            assert browser.connects == 1
            assert not Delivery(sent, browser.events).skipped, "it had all, before it was lost"
        for browser in [*behind, *absent]:
            skipped = set(Delivery(sent, browser.events).skipped)
            assert skipped == sent.lost, "it never saw them"
        naive.poll()
        naive.assert_caught(sent)


def test_clients_know_of_what_its_sender_took_with_it(stage: Stage, standby: Standby):
    """All who sent what was lost are gone; a web process had heard of it."""
    with behind_one_address(stage) as scene, naive_poller(scene) as naive:
        absent = of_each_site(scene, 1)
        leave(absent)
        send(scene, 10)
        scene.sender.stop()
        newest = scene.sender.sent.ids[-1]
        for browser in of_each_site(scene, 0):
            browser.wait_for(lambda b: has_come_to(b, newest), 5, newest)
        naive.poll()
        standby.lag()
        arguments = (stage.senders.url, stage.prefix, scene.room)
        record(scene.sender.sent, program("and_die", *arguments, "killed"))
        lost = scene.sender.sent.ids[-1]
        for browser in of_each_site(scene, 0):
            browser.wait_for(lambda b: has_come_to(b, lost), 5, lost)

        with scene.redis_away():
            scene.fail_over(standby)
            for browser in of_each_site(scene, 0):
                browser.wait_for(lambda b: b.of_type("stream-reset"), HEALED, "the reset")
            record(scene.sender.sent, program("and_die", *arguments, "gone"))
            come_back(absent)
            scene.wait_complete(HEALED)
        sent = scene.finish(resets=1)

        assert sent.lost == {lost}
        naive.poll()
        naive.assert_caught(sent)


def test_a_failover_and_back(stage: Stage, standby: Standby):
    """Each loses something: two resets, also for those who were away both times."""
    with behind_one_address(stage) as scene, naive_poller(scene) as naive:
        absent = of_each_site(scene, 1)
        leave(absent)
        naive.poll()
        for _ in range(2):
            standby.follow()
            send(scene, 10)
            with scene.redis_away():
                send_what_is_lost(scene, standby, but=absent)
                scene.fail_over(standby)
                heals(scene, but=absent)
        come_back(absent)
        sent = scene.finish(resets=2)

        assert len(sent.losses) == 2
        naive.poll()
        naive.assert_caught(sent)
