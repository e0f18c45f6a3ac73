"""The oldest redis-py that is supported, alone; other tests run on the newest, with hiredis."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def oldest() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirement = next(each for each in project["dependencies"] if each.startswith("redis"))
    return requirement.partition(">=")[2]


@pytest.fixture(scope="session")
def oldest_redis_py(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to put in front of the installed packages."""
    folder = tmp_path_factory.mktemp("redis-py")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = f"redis=={oldest()}"
    subprocess.run([*pip, "--no-deps", "--target", str(folder), wanted], check=True, timeout=120)
    return folder


def test_the_contract_holds_on_the_oldest_redis_py_without_hiredis(oldest_redis_py: Path):
    program = (
        "import sys; sys.modules['hiredis'] = None; "
        f"import redis; assert redis.__version__.startswith({oldest()!r}); "
        "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    )
    # What depends on the server rather than on redis-py runs on one of them.
    selection = ["-k", "not (gevent or threads-redis or asyncio-redis)"]
    run = subprocess.run(
        [sys.executable, "-c", program, "tests/contract", "tests/scripts", "-qx", *selection],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(oldest_redis_py)},
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
