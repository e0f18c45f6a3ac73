"""How many descriptors a process has open, and how many it may."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from streamy_redis.servers import descriptors


@pytest.fixture(autouse=True)
def limits() -> Iterator[tuple[int, int]]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield limits
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def opened(count: int) -> Iterator[list[int]]:
    made = [os.dup(0) for _ in range(count)]
    try:
        yield made
    finally:
        for fd in made:
            os.close(fd)


def count() -> int:
    seen = descriptors.seen()
    assert seen is not None
    return seen.open


@pytest.mark.parametrize("is_new", [True, False])
def test_they_are_counted_with_holes_between_them(monkeypatch: pytest.MonkeyPatch, is_new: bool):
    if not is_new:
        # As before Linux 6.2, which doesn't say it.
        monkeypatch.setattr(descriptors, "_SAYS_HOW_MANY", "/dev/null")
    before = count()
    with opened(50) as made:
        descriptors._listed.cache_clear()
        assert count() == before + 50
        os.close(made[0])
        descriptors._listed.cache_clear()
        assert count() == before + 49
        made[0] = os.dup(0)


def test_what_was_opened_since_they_were_listed_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(descriptors, "_SAYS_HOW_MANY", "/dev/null")
    monkeypatch.setattr(descriptors, "_GLANCE", 3600.0)
    descriptors._listed.cache_clear()
    before = count()

    with opened(300) as made:
        assert count() >= max(made) > before
    descriptors._listed.cache_clear()


@pytest.mark.parametrize("path", ["/proc/self/fd", "/dev/null"])
def test_none_that_is_left_is_seen(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(descriptors, "_SAYS_HOW_MANY", path)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))

    seen = descriptors.seen()

    assert seen is not None
    assert seen.are_short


def test_a_limit_is_raised_as_far_as_one_may(limits: tuple[int, int]):
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))

    descriptors.raise_limit()

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
