"""The command: as a process of its own, or faster, in this one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from streamy_redis.__main__ import main
from tests.deadline import Deadline

COMMAND = Path(sys.executable).with_name("streamy-redis")

Result = subprocess.CompletedProcess[str]
Run = Callable[..., Result]
# Without what the machine that tests has in its environment.
VARIABLES = {
    name: value for name, value in os.environ.items() if not name.startswith(("STREAMY_", "REDIS_"))
}


class Commands:
    """Runs `streamy-redis` on one Redis, under one prefix."""

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.prefix = prefix
        self._started: list[subprocess.Popen[str]] = []

    @property
    def variables(self) -> dict[str, str]:
        return {**VARIABLES, "STREAMY_REDIS_URL": self.url, "STREAMY_PREFIX": self.prefix}

    def call(self, *arguments: str, stdin: str | bytes = "", **variables: str) -> Result:
        """In this process, from main() on: for what needs no process of its own."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(os, "environ", {**self.variables, **variables})
            patch.setattr(sys, "argv", [str(COMMAND), *arguments])
            files = {}
            for name in ("stdin", "stdout", "stderr"):
                binary = stack.enter_context(tempfile.TemporaryFile())
                files[name] = stack.enter_context(open(binary.fileno(), "w+", closefd=False))
                patch.setattr(sys, name, files[name])
            files["stdin"].buffer.write(content)
            files["stdin"].seek(0)
            with pytest.raises(SystemExit) as left:
                main()
            for file in files.values():
                file.seek(0)
            output, errors = files["stdout"].read(), files["stderr"].read()
        return subprocess.CompletedProcess(arguments, int(left.value.code or 0), output, errors)

    def run(self, *arguments: str, **variables: str) -> Result:
        return subprocess.run(
            [COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.variables, **variables},
        )

    def shell(self, script: str) -> Result:
        """What a shell does with it, as users type it; its exit code is that of the first part."""
        path = f"{COMMAND.parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", "-c", f"{script}\nexit ${{PIPESTATUS[0]}}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.variables, "PATH": path},
        )

    def start(
        self, *arguments: str, variables: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [COMMAND, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.variables if variables is None else variables,
        )
        self._started.append(process)
        return process

    def listens(self, stream_id: str) -> bool:
        """Whether somebody is subscribed to the stream."""
        with redis.Redis.from_url(self.url) as store:
            [(_, count)] = store.pubsub_numsub(f"{self.prefix}:{{{stream_id}}}")
        return bool(count)

    def wait_listening(self, stream_id: str) -> None:
        Deadline(20).until(lambda: self.listens(stream_id), "somebody listens")

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()


@pytest.fixture
def commands(redis_url: str, prefix: str) -> Iterator[Commands]:
    made = Commands(redis_url, prefix)
    yield made
    made.close()
