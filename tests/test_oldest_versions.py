"""The oldest of everything that pyproject.toml lets users have, all at once.

All other tests run on the newest. What depends on these packages runs a second time here: what
the contract says of connections, tasks and loops, on redis-py's own parser; exceptions thrown into
hiredis, frameworks, web servers and the command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.web_servers import ROOT

# Not for users: what the project is tested, checked and documented with.
OURS = {"test-core", "test", "check", "docs"}
FOLDER = ".venv-oldest"
# All else is decided by us, or by the server's scripts.
OF_PACKAGES = [
    *("event_loops", "far_redis", "forks", "lifecycle", "live", "lost_replies", "other_servers"),
    *("outages", "slow_redis", "subscribe_timeout", "unix_socket", "writer_on_asyncio"),
    "wrong_settings",
]
CONTRACT = [
    *(f"tests/contract/test_{name}.py" for name in OF_PACKAGES),
    *("-m", "not refusal", "-k", "not (memory or threads-redis or asyncio-redis)"),
]
# A server of each protocol; the first gunicorn of these has no asgi worker.
FRONT = [
    *("tests/contract/test_cuts.py", "tests/adapters", "tests/cli/test_commands.py"),
    *("tests/http/test_fastapi.py", "tests/http/test_response.py", "-k"),
    "not test_response or (gthread or uvicorn) and not (bad_ or every_other_id or an_empty)",
]


def floors() -> Iterator[str]:
    """Each lower bound as a constraint."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"]]
    for name in extras.keys() - OURS:
        requirements += extras[name]
    for requirement in map(Requirement, requirements):
        for bound in requirement.specifier:
            if bound.operator == ">=":
                yield f"{requirement.name}=={bound.version}"


@pytest.fixture(scope="module")
def oldest(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with all of them, made at the first use."""
    if sys.version_info[:2] != (3, 11):
        # On newer ones several of them can't be installed.
        pytest.skip("Python 3.11 is not on PATH")
    constraints = tmp_path_factory.mktemp("oldest") / "constraints.txt"
    constraints.write_text("\n".join(sorted(set(floors()))))
    made = subprocess.run(
        ["bash", "-euc", f". scripts/environment test-core {FOLDER}"],
        cwd=ROOT,
        env={**os.environ, "PIP_CONSTRAINT": str(constraints)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr[-4000:]
    return str(ROOT / FOLDER / "bin" / "python")


def run_tests(python: str, redis_url: str, *arguments: str, setup: str = "pass") -> None:
    """AssertionError unless some passed and none failed or was skipped."""
    program = f"import sys; {setup}; import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    ours = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    run = subprocess.run(
        [python, "-c", program, "-qx", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={
            **ours,
            "STREAMY_TEST_REDIS_URL": redis_url,
            "PATH": os.pathsep.join([str(Path(python).parent), os.environ["PATH"]]),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    last_line = run.stdout.splitlines()[-1]
    assert " passed" in last_line, run.stdout
    assert "skipped" not in last_line, run.stdout


def test_they_are_what_is_installed(oldest: str):
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    names, versions = zip(*(floor.split("==") for floor in sorted(set(floors()))), strict=True)

    told = subprocess.run([oldest, "-c", code, *names], capture_output=True, text=True, check=True)

    # 8.2 is 8.2.0.
    for name, floor, found in zip(names, versions, told.stdout.split(), strict=True):
        assert f"{found}.0".startswith(floor), name


def test_the_contract_holds_on_them_without_hiredis(oldest: str, redis_url: str):
    run_tests(oldest, redis_url, *CONTRACT, setup="sys.modules['hiredis'] = None")


def test_frameworks_servers_and_commands_work_on_them(oldest: str, redis_url: str):
    run_tests(oldest, redis_url, *FRONT)
