"""When an adapter is imported: before a crowd comes, and for nobody who does without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

KINDS = [("StreamManager", "flask"), ("AsyncStreamManager", "starlette")]


def is_imported(code: str, module: str) -> bool:
    shown = f"{code}; import sys; print({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


@pytest.mark.parametrize(("manager", "framework"), KINDS)
def test_a_crowd_that_holds_all_descriptors_finds_the_adapter_imported(
    manager: str, framework: str
):
    make = f"from streamy_redis import {manager}; {manager}('redis://127.0.0.1:1/0')"

    assert is_imported(f"import {framework}; {make}", f"streamy_redis.adapters.{framework}")
    assert not is_imported(make, framework)
