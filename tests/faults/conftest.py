"""One stage for all faults that leave its servers in working order."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from .long_scenes import LongScenes
from .stage import Scene, Stage

SEED = int(os.environ.get("STREAMY_FAULT_SEED") or random.SystemRandom().randrange(10**6))


@pytest.fixture(scope="session")
def seed() -> int:
    """Of all dice; printed at the end, and set with STREAMY_FAULT_SEED."""
    return SEED


@pytest.fixture
def rng(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """Dice of a test's own: the same for the same seed and test."""
    print(f"STREAMY_FAULT_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"fault suite: STREAMY_FAULT_SEED={SEED}")


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
    from . import test_cut_off, test_redis_stopped

    chosen = set()
    for item in request.session.items:
        given = getattr(item, "callspec", None)
        if given is not None and "long_scenes" in getattr(item, "fixturenames", ()):
            values = given.params
            chosen.add(values.get("name") or f"stopped {values['seconds']} s")
    scenes = {**test_redis_stopped.LONG, **test_cut_off.LONG}
    played = LongScenes({name: play for name, play in scenes.items() if name in chosen})
    yield played
    played.close()
