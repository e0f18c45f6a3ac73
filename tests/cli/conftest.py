"""The command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

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

    def run(self, *arguments: str, stdin: str | None = None, **variables: str) -> Result:
        return subprocess.run(
            [COMMAND, *arguments],
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=60,
            env={**self.variables, **variables},
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
