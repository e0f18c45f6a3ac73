"""One process loses its way to Redis, and nobody tells it so."""

from __future__ import annotations

import pytest

from tests.deadline import Deadline

from .proxy import Fate
from .stage import Scene, Stage

# What the promise says: seconds until a process has noticed and is complete.
NOTICED = 10


def test_connections_that_a_nat_forgot(stage: Stage):
    """Of one process; the other one, and all who send, are not concerned."""
    cut_off = stage.sites[1]
    with stage.scene(naive_url=cut_off.proxy.url) as scene, scene.redis_away(cut_off):
        cut_off.proxy.forget_connections()
        scene.burst(5)
        first = scene.sender.sent.ids[-1]

        for browser in scene.browsers:
            browser.wait_for(
                lambda b: any(e.last_event_id == first for e in b.messages),
                NOTICED if browser in scene.browsers_of(cut_off) else 1,
                "what was sent when the connections were forgotten",
            )
        scene.keep_alives_go_on()
        scene.wait_complete(1)

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


def test_a_way_that_leads_nowhere_for_a_while(stage: Stage):
    """Longer than every timeout of a process's own; 20 s of it in the soak."""
    with stage.scene(naive_url=stage.sites[0].proxy.url) as scene, scene.redis_away():
        for site in stage.sites:
            site.proxy.cut_silently()
        scene.burst(5)
        Deadline(6).stays(scene.is_connected, every=0.1)
        scene.keep_alives_go_on()

        for site in stage.sites:
            site.proxy.let_new_through()
        scene.wait_complete(NOTICED)

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


def test_messages_that_are_swallowed_while_commands_work(stage: Stage):
    with stage.scene(naive_url=stage.sites[0].proxy.url) as scene, scene.redis_away():
        for site in stage.sites:
            site.proxy.swallows_messages = True
        try:
            scene.burst(5)
            first = scene.sender.sent.ids[-1]
            for browser in scene.browsers:
                browser.wait_for(
                    lambda b: any(e.last_event_id == first for e in b.messages), NOTICED, first
                )
            # Nothing more is sent: the very last event must not be the one that is forgotten.
            scene.sender.stop()
            scene.other.stop()
            scene.wait_complete(NOTICED)
        finally:
            for site in stage.sites:
                site.proxy.swallows_messages = False

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


@pytest.mark.parametrize("fate", list(Fate), ids=lambda fate: fate.name.lower())
def test_answers_about_the_log_that_get_lost_after_a_reconnect(stage: Stage, fate: Fate):
    """Both the acknowledgement of SUBSCRIBE and the pages that make up for the hole."""
    with stage.scene() as scene, scene.redis_away():
        for site in stage.sites:
            site.proxy.mark(b"EVALSHA", fate)
            site.proxy.mark(b"\r\nSUBSCRIBE\r\n", fate)
        scene.admin.client_kill_filter(_type="pubsub")
        scene.burst(20)
        first = scene.sender.sent.ids[-1]

        for browser in scene.browsers:
            browser.wait_for(
                lambda b: any(e.last_event_id == first for e in b.messages), NOTICED, first
            )
        scene.wait_complete(2)

        assert [site.proxy.marked for site in stage.sites] == [0, 0]
        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


def test_half_a_message(scene: Scene):
    for _ in range(3):
        for site in scene.stage.sites:
            site.proxy.halves_messages = 1
        Deadline(2).until(lambda: not any(site.proxy.halves_messages for site in scene.stage.sites))
        scene.wait_complete(2)

    scene.finish()
    assert scene.is_connected()
