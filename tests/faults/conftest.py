"""One stage for all faults that leave its servers in working order."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from .long_scenes import LongScenes
from .stage import Scene, Stage


@pytest.fixture(scope="session")
def seed() -> int:
    """Of all dice; printed at the start, and set with STREAMY_FAULT_SEED."""
    return int(os.environ["STREAMY_FAULT_SEED"])


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Dice of a test's own: the same for the same seed and test."""
    print(f"STREAMY_FAULT_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def scene(stage: Stage) -> Iterator[Scene]:
    with stage.scene() as scene:
        yield scene


@pytest.fixture(scope="session")
def long_scenes(request: pytest.FixtureRequest) -> Iterator[LongScenes]:
    from . import test_cut_off, test_redis_stopped, test_refusals

    chosen = {
        item.callspec.params["name"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and "long_scenes" in item.fixturenames
    }
    scenes = {**test_redis_stopped.LONG, **test_cut_off.LONG, **test_refusals.LONG}
    played = LongScenes({name: play for name, play in scenes.items() if name in chosen})
    yield played
    played.close()
