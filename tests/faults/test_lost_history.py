"""Redis loses some or all of a history: one reset each, then live; old and new never mixed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.browser import EventSource
from tests.deadline import Deadline
from tests.event_stream import MessageEvent
from tests.exactly_once import Delivery, SentLog, position_of

from .naive import NaivePoller, stored
from .stage import Scene, Stage


def heard_by_all(scene: Scene, count: int) -> None:
    """Everybody has had that many more events."""
    for browser in scene.browsers:
        browser.wait_for(len(browser.messages) + count, 5)


def reset_of(browser: EventSource) -> dict[str, str | None]:
    (reset,) = browser.of_type("stream-reset")
    told: dict[str, str | None] = json.loads(reset.data)
    return told


def assert_tells_what_follows(browser: EventSource) -> None:
    """null where the log held nothing yet when it was read."""
    reset = browser.events.index(browser.of_type("stream-reset")[0])
    assert reset_of(browser)["first"] in (None, browser.events[reset + 1].last_event_id)


def test_restarted_with_its_data_is_complete(stage: Stage):
    with stage.scene() as scene:
        with scene.redis_away():
            scene.naive.may_restart.clear()
            stage.redis.kill()
            Deadline(0.5).stays(scene.is_connected)
            stage.redis.restart()
            scene.burst(10)
            scene.naive.may_restart.set()
            scene.wait_complete(2)
        sent = scene.finish()

        assert scene.is_connected()
        scene.assert_stored_once()
        assert scene.naive.assert_caught(sent).missing


def test_restarted_empty_is_one_reset_then_live(stage: Stage):
    with stage.scene() as scene:
        with scene.redis_away():
            stage.redis.kill()
            Deadline(0.5).stays(scene.is_connected)
            stage.redis.restart(empty=True)
            for browser in [*scene.browsers, *scene.bystanders]:
                browser.wait_for(lambda b: b.of_type("stream-reset"), 3, "the reset")
            scene.wait_complete(2)
        sent = scene.finish(resets=1)

        assert scene.is_connected()
        for browser in scene.browsers:
            assert_tells_what_follows(browser)
        scene.naive.assert_caught(sent, resets=1)


def delete(scene: Scene) -> None:
    scene.admin.delete(scene.log_key)


def flush(scene: Scene) -> None:
    """Takes the other room's history as well."""
    scene.other.paused(lambda: (scene.wait_complete(2), scene.admin.flushall()))


def rename(scene: Scene) -> None:
    scene.admin.rename(scene.log_key, f"{scene.log_key} moved away")


def evict(scene: Scene) -> None:
    """Fill the memory until the log is what has to go; the one beside it stays."""
    # Else each event would make it volatile again.
    scene.stop_beside()
    fill_the_memory(scene)


def fill_the_memory(scene: Scene) -> None:
    """While nobody sends."""
    # Of earlier scenes there would be much else to evict.
    logs = {f"{scene.stage.prefix}:{{{room}}}:log".encode() for room in (scene.room, scene.beside)}
    for key in scene.admin.scan_iter(count=1000):
        if key not in logs:
            scene.admin.delete(key)
    scene.admin.persist(f"{scene.stage.prefix}:{{{scene.beside}}}:log")
    used = scene.admin.info("memory")["used_memory"]
    scene.admin.config_set("maxmemory-policy", "volatile-random")
    scene.admin.config_set("maxmemory", used + 1_000_000)
    try:
        for n in range(4000):
            scene.admin.set(f"ballast {n % 40}", b"x" * 60_000, ex=60)
            if not scene.admin.exists(scene.log_key):
                return
        raise AssertionError("the log was never evicted")
    finally:
        scene.admin.config_set("maxmemory", 0)
        scene.admin.config_set("maxmemory-policy", "noeviction")
        for n in range(40):
            scene.admin.delete(f"ballast {n}")


@pytest.mark.parametrize("lose", [delete, flush, rename, evict], ids=lambda f: f.__name__)
def test_a_history_that_is_gone_is_one_reset_then_live(stage: Stage, lose: Callable[[Scene], None]):
    with stage.scene() as scene:
        scene.paused(lambda: (scene.wait_complete(2), lose(scene)))
        for browser in scene.browsers:
            browser.wait_for(lambda b: b.of_type("stream-reset"), 3, "the reset")
        heard_by_all(scene, 20)
        sent = scene.finish(resets=1, beside_resets=1 if lose is flush else 0)

        assert scene.is_connected()
        for browser in scene.browsers:
            reset = browser.events.index(browser.of_type("stream-reset")[0])
            epochs = [position_of(e.last_event_id)[0] for e in browser.events if e.last_event_id]
            before, after = set(epochs[1:reset]), set(epochs[reset:])
            assert len(before) == len(after) == 1, "old and new are never mixed"
            assert max(before) < min(after)
            assert_tells_what_follows(browser)
        scene.naive.assert_caught(sent, resets=1)


def test_histories_that_go_while_events_are_on_their_way(stage: Stage):
    """Nobody waits for anybody: three times, each one reset for each client of each stream."""
    with stage.scene(rate=200) as scene:
        for n in range(1, 4):
            scene.admin.flushall()
            for browser in [*scene.browsers, *scene.bystanders]:
                browser.wait_for(lambda b, n=n: len(b.of_type("stream-reset")) == n, 3, "a reset")
            heard_by_all(scene, 20)
        sent = scene.finish(resets=3)

        assert scene.is_connected()
        scene.naive.assert_caught(sent, resets=3)


def test_a_history_trimmed_past_a_client_that_is_away(stage: Stage):
    """It comes back with its cursor: one reset, then what is kept and newer."""
    with stage.scene() as scene:
        late = scene.browsers[0]
        late.close()
        cursor = late.last_event_id
        count = len(scene.sender.sent)
        with scene.naive.away():
            Deadline(5).until(lambda: len(scene.sender.sent) > count + 30)
            scene.paused(lambda: scene.admin.xtrim(scene.log_key, maxlen=10, approximate=False))
        back = stage.sites[0].browser(scene.room, last_event_id=cursor)
        back.wait_for(lambda b: b.of_type("stream-reset"), 3, "the reset")
        scene.browsers[0] = back
        heard_by_all(scene, 20)

        scene.sender.stop()
        scene.stop_beside()
        scene.wait_complete(5)
        told = reset_of(back)
        assert (told["requested"], told["reason"]) == (cursor, "trimmed")
        assert told["first"] == back.messages[0].last_event_id
        Delivery(scene.sender.sent, back.events).assert_exactly_once(resets=1)
        for browser in scene.browsers[1:]:
            # Those that were live had had it all.
            Delivery(scene.sender.sent, browser.events).assert_exactly_once()
        assert Delivery(scene.sender.sent, back.events).skipped
        assert scene.naive.assert_caught(scene.sender.sent, resets=1).missing


@pytest.mark.parametrize("more", [0, 3], ids=["nothing after it", "three after it"])
def test_a_history_trimmed_exactly_to_a_client_is_no_reset(stage: Stage, more: int):
    """Its own last event is trimmed, and nothing that it hasn't had.

    With nothing after it, nobody can have missed anything: there is nothing to catch.
    """
    with stage.scene() as scene:
        scene.sender.stop()
        scene.wait_complete(2)
        for browser in scene.browsers:
            browser.close()
        cursor = scene.browsers[0].last_event_id
        with scene.naive.away():
            if more:
                scene.burst(more)
            scene.admin.xtrim(scene.log_key, maxlen=more, approximate=False)

        back = [site.browser(scene.room, last_event_id=cursor) for site in stage.sites]
        for browser in back:
            browser.wait_open()
        scene.burst(5)
        for browser in back:
            browser.wait_for(more + 5)
            Delivery(scene.sender.sent, browser.events).assert_exactly_once()
            assert browser.of_type("stream-open")[0].last_event_id == cursor
        if more:
            assert scene.naive.assert_caught(scene.sender.sent).missing


def test_a_live_feed_whose_history_is_trimmed_under_it_is_undisturbed(scene: Scene):
    """What only listens needs no history: it is one who polls the log that misses something."""
    start = scene.browsers[0].of_type("stream-open")[0].last_event_id
    naive = NaivePoller(scene.admin, scene.log_key, start=start)
    for _ in range(4):
        naive.poll()
        heard_by_all(scene, 10)
        scene.paused(lambda: scene.admin.xtrim(scene.log_key, maxlen=2, approximate=False))
        naive.poll()
    heard_by_all(scene, 10)

    sent = scene.finish()
    assert scene.is_connected()
    naive.assert_caught(sent)


def test_a_history_rolled_back_and_rewritten_with_other_events(stage: Stage):
    """What a failover to a lagging replica leaves: other events at the same positions."""
    with stage.scene() as scene:
        scene.sender.stop()
        scene.burst(10)
        scene.wait_complete(2)
        image = scene.admin.dump(scene.log_key)
        lost = scene.burst(10)
        scene.wait_complete(2)
        Deadline(2).until(lambda: scene.naive.events[-1].last_event_id == lost[-1])
        old = stored(scene.admin, scene.log_key)

        scene.admin.restore(scene.log_key, 0, image, replace=True)
        new = scene.rewritten(15)
        # Connections are lost in a failover as well.
        scene.admin.client_kill_filter(_type="pubsub")
        kept = stored(scene.admin, scene.log_key)
        assert {position_of(i) for i in lost} <= {position_of(i) for i in new}
        log = SentLog()
        for event in kept:
            log.returned(event.last_event_id, event.data)
        at_the_start = MessageEvent("stream-open", "{}", "0-0-0")

        for browser in scene.browsers:
            browser.wait_for(
                lambda b: b.messages[-1].last_event_id == new[-1], 5, "the newest of the new"
            )
            reset = browser.events.index(browser.of_type("stream-reset")[0])
            assert seen(browser.events[:reset]) == old[-len(seen(browser.events[:reset])) :]
            assert seen(browser.events[reset:]) == kept, "the whole log, from its start"
            assert reset_of(browser)["reason"] in ("rewritten", "ahead")
            assert reset_of(browser)["requested"] == lost[-1]
            Delivery(log, [at_the_start, *browser.events[reset + 1 :]]).assert_exactly_once()
        assert scene.is_connected()
        # The naive one was never told: it still shows what has never been sent.
        assert set(lost) <= set(scene.naive.assert_caught(log).foreign)


def seen(events: list[MessageEvent]) -> list[MessageEvent]:
    return [event for event in events if not event.type.startswith("stream-")]
