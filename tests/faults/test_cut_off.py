"""One process loses its way to Redis, and nobody tells it so."""

from __future__ import annotations

from functools import partial

import pytest

from tests.deadline import Deadline

from .long_scenes import LongScenes
from .proxy import Fate
from .stage import Stage, has_come_to

# What the promise says: seconds until a process has noticed and is complete.
NOTICED = 10


def forgotten_by_a_nat(stage: Stage) -> None:
    """Of one process; the other one, and all who send, are not concerned."""
    cut_off = stage.sites[1]
    with stage.scene(naive_url=cut_off.proxy.url) as scene:
        with scene.redis_away(cut_off):
            cut_off.proxy.forget_connections()
            scene.burst(5)
            first = scene.sender.sent.ids[-1]

            for browser in scene.browsers:
                browser.wait_for(
                    lambda b: has_come_to(b, first),
                    NOTICED if browser in scene.browsers_of(cut_off) else 1,
                    "what was sent when the connections were forgotten",
                )
            scene.keep_alives_go_on()
            scene.wait_complete(1)

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


def cut_off_for_20_s(stage: Stage) -> None:
    """One process; to the other one, and to all who send, Redis is as near as ever."""
    cut_off = stage.sites[0]
    with stage.scene(naive_url=cut_off.proxy.url) as scene:
        others = [b for b in scene.browsers if b not in scene.browsers_of(cut_off)]
        with scene.redis_away(cut_off):
            cut_off.proxy.cut_silently()
            outage = Deadline(20)
            newest = scene.burst(5)[-1]
            for browser in others:
                browser.wait_for(lambda b: has_come_to(b, newest), 1, "at once")
            outage.stays(scene.is_connected, every=0.1)
            scene.keep_alives_go_on()
            cut_off.proxy.let_new_through()
            scene.wait_complete(NOTICED)

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


def messages_swallowed(stage: Stage) -> None:
    with stage.scene(naive_url=stage.sites[0].proxy.url) as scene:
        scene.measure_beside()
        with scene.redis_away():
            for site in stage.sites:
                site.proxy.swallows_messages = True
            try:
                newest = scene.burst(5)[-1]
                for browser in scene.browsers:
                    browser.wait_for(lambda b: has_come_to(b, newest), NOTICED, newest)
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


def answers_lost_after_a_reconnect(stage: Stage, fate: Fate) -> None:
    """Both the acknowledgement of SUBSCRIBE and the pages that make up for the hole."""
    with stage.scene() as scene:
        with scene.redis_away():
            for site in stage.sites:
                site.proxy.mark(b"EVALSHA", fate)
                site.proxy.mark(b"\r\nSUBSCRIBE\r\n", fate)
            scene.naive.may_restart.clear()
            scene.admin.client_kill_filter(_type="pubsub")
            newest = scene.burst(20)[-1]
            for browser in scene.browsers:
                browser.wait_for(lambda b: has_come_to(b, newest), NOTICED, newest)
            scene.naive.may_restart.set()
            scene.wait_complete(2)

        assert [site.proxy.marked for site in stage.sites] == [0, 0]
        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing


LONG = {
    "forgotten by a nat": forgotten_by_a_nat,
    "cut off for 20 s": cut_off_for_20_s,
    "messages swallowed": messages_swallowed,
    **{
        f"answers about the log {fate.name.lower()}": partial(
            answers_lost_after_a_reconnect, fate=fate
        )
        for fate in Fate
    },
}


@pytest.mark.parametrize("name", LONG)
def test_cut_off(long_scenes: LongScenes, name: str):
    long_scenes.result(name)


def test_half_a_message(stage: Stage):
    """And its connection is gone; what listens has to connect again, and misses the rest."""
    with stage.scene(naive_url=stage.senders.url) as scene:
        proxies = [stage.senders, *(site.proxy for site in stage.sites)]
        for _ in range(3):
            with scene.redis_away():
                for proxy in proxies:
                    proxy.halves_messages = 1
                Deadline(2).until(lambda: not any(proxy.halves_messages for proxy in proxies))
                scene.wait_complete(2)

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).missing
