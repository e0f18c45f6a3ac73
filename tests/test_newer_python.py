"""How ASGI responses are written, on a newer Python: each version has asyncio's tasks its own way.

All other tests run on the one Python of .venv. Those that look at how a response is written run
a second time here, on 3.12 or newer.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.web_servers import ROOT

IS_NEWER = sys.version_info >= (3, 12)
MODULES = [
    *("tests/adapters/test_writer.py", "tests/adapters/test_starlette.py"),
    "tests/adapters/test_wire.py",
    *("tests/http/test_response.py", "tests/http/test_limits.py", "tests/http/test_shutdown.py"),
]
# Each kind of send() there is, but not each kind of worker that has the same; nothing of what is
# decided before the first write.
SELECTED = (
    "test_writer or test_wire or test_starlette"
    " or test_response and (uvicorn or gunicorn-asgi or granian or hypercorn)"
    " and not (bad_ or every_other_id or an_empty or head_has or retry_is)"
    " or test_limits and uvicorn"
    " or test_shutdown and uvicorn and (does_not_read or uvicorn-1)"
)


@pytest.fixture(scope="module")
def newer_python() -> str:
    """An interpreter with this project in it, made at the first use."""
    if IS_NEWER:
        return sys.executable
    made = subprocess.run(
        ["bash", "-euc", ". scripts/environment test-core .venv-newer 12"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "needs Python 3.12" in made.stderr:
        pytest.skip("Python 3.12 is not on PATH")
    assert made.returncode == 0, made.stderr[-2000:]
    return str(ROOT / ".venv-newer" / "bin" / "python")


def run_tests(python: str, redis_url: str, *arguments: str) -> None:
    """AssertionError unless some passed and none failed or was skipped."""
    ours = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    process = subprocess.Popen(
        [python, "-m", "pytest", "-qx", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**ours, "STREAMY_TEST_REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        # Interrupted, it stops its own servers.
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert process.returncode == 0, output[-6000:]
    last_line = output.splitlines()[-1]
    assert " passed" in last_line, output
    assert "skipped" not in last_line, output


def test_whatever_is_promised_of_a_response_holds_on_it(newer_python: str, redis_url: str):
    """One run: each begins with seconds of imports."""
    run_tests(newer_python, redis_url, *MODULES, "-k", SELECTED)
