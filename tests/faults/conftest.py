"""One stage for all faults that leave its servers in working order."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

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
