"""Connections to Redis killed again and again: complete within 1 s of the last kill."""

from __future__ import annotations

import random

import pytest

from tests.deadline import Deadline

from .stage import Scene


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
