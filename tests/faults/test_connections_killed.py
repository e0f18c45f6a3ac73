"""Connections to Redis killed again and again: complete within 1 s of the last kill."""

from __future__ import annotations

import random

import pytest

from tests.deadline import Deadline

from .stage import Scene, Stage


@pytest.mark.parametrize("kinds", [("pubsub",), ("normal",), ("pubsub", "normal")], ids="+".join)
def test_killed_every_500_ms(scene: Scene, rng: random.Random, kinds: tuple[str, ...]):
    killed = 0
    for _ in range(6):
        # A burst at the moment of the kill, so that whoever listens then must have missed some.
        with scene.admin.pipeline(transaction=False) as pipeline:
            for kind in kinds:
                pipeline.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            killed += sum(pipeline.execute())
        ids = scene.burst(20)
        assert len(set(ids)) == 20
        Deadline(rng.uniform(0.4, 0.6)).stays(scene.is_connected, lambda: scene.browsers)

    scene.wait_complete(1)

    assert killed >= 6 * len(kinds)
    sent = scene.finish()
    assert scene.is_connected()
    assert not scene.sender.errors, "a killed connection is not the sender's business"
    if "pubsub" in kinds:
        assert scene.naive.assert_caught(sent).missing


def test_hung_up_on_as_soon_as_subscribed(stage: Stage):
    """As by a proxy, or an output buffer's limit: that it answered doesn't make it steady."""
    seconds = 4
    with stage.scene() as scene:
        mine = f"{stage.prefix}:*"
        # Those of an earlier scene linger, and would be counted.
        Deadline(5).until(lambda: len(scene.admin.pubsub_channels(mine)) == 2, "two streams")
        before = {site: site.proxy.commands.get("SUBSCRIBE", 0) for site in stage.sites}
        with scene.redis_away():
            for site in stage.sites:
                site.proxy.hangs_up = True
                site.proxy.kill_connections()
            Deadline(seconds).stays(scene.is_connected, lambda: scene.browsers)
            for site in stage.sites:
                site.proxy.hangs_up = False
            tried = {s: s.proxy.commands["SUBSCRIBE"] - n for s, n in before.items()}
            scene.wait_complete(1)

        # Two streams each time, with pauses that grow from 25 ms to 250 ms at the least.
        assert max(tried.values()) <= 2 * (4 + seconds / 0.25), tried
        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.is_listening
        scene.assert_stored_once()
        assert len(sent) > 100
