"""The services of docker-compose.yml, and of docker-compose.dev.yml, run without an engine."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import redis
import yaml

from tests.child import Child
from tests.deadline import Deadline
from tests.ports import free_port
from tests.web_servers import ROOT

from .image import Image

__all__ = ["DEVELOPMENT", "PRODUCTION", "ComposeStack", "Service", "compose_file"]

PRODUCTION = ("docker-compose.yml",)
DEVELOPMENT = ("docker-compose.yml", "docker-compose.dev.yml")


@cache
def compose_file(files: tuple[str, ...]) -> dict[str, Any]:
    """The files as podman-compose understands them: merged, and their variables filled in."""
    given = [word for file in files for word in ("-f", file)]
    done = subprocess.run(
        [Path(sys.executable).with_name("podman-compose"), *given, "--dry-run", "config"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)  # type: ignore[no-any-return]


class Service:
    """One service: its very command, environment and health check, as processes of this machine.

    What the engine would make differs: names of services become addresses of the loopback
    interface, ports free ones, and what is mounted lies in a folder.
    """

    def __init__(self, name: str, settings: dict[str, Any], stack: ComposeStack) -> None:
        self.name = name
        self.settings = settings
        self.port = free_port()
        self._stack = stack
        self._folder = stack.folder / name
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def child(self) -> Child:
        assert self._child is not None
        return self._child

    @property
    def exposed(self) -> str | None:
        """The port where it listens in its container."""
        [port] = self.settings.get("expose", [None])
        return port  # type: ignore[no-any-return]

    def here(self, text: str) -> str:
        """A text of this service as it has to be on this machine."""
        places = {
            "0.0.0.0": "127.0.0.1",
            "/app": f"{self._folder}/app",
            **{target: f"{self._folder}{target}" for target in self._mounts()},
            **{
                f"{other.name}:{other.exposed}": f"127.0.0.1:{other.port}"
                for other in self._stack.services.values()
            },
        }
        if self.exposed:
            places[self.exposed] = str(self.port)
        # All in one go: what has been replaced may look like something else.
        longest_first = sorted(places, key=len, reverse=True)
        pattern = "|".join(rf"(?<![\w-]){re.escape(place)}\b" for place in longest_first)
        return re.sub(pattern, lambda found: places[found[0]], text)

    def _mounts(self) -> dict[str, str | None]:
        """From each path in the container where something may be written or was put, to what."""
        mounts: dict[str, str | None] = dict.fromkeys(self.settings["tmpfs"])
        for volume in self.settings.get("volumes", []):
            source, target, *_ = volume.split(":")
            mounts[target] = source if source.startswith("./") else None
        return mounts

    def environment(self) -> dict[str, str]:
        own = {
            name: self.here(value) for name, value in self.settings.get("environment", {}).items()
        }
        return {
            **self._stack.image.env,
            # nginx is where only root's PATH leads; an engine sets the host's name.
            "PATH": f"{self._stack.image.env['PATH']}:/usr/sbin",
            "HOSTNAME": socket.gethostname(),
            "TMPDIR": f"{self._folder}/tmp",
            **own,
        }

    def start(self) -> None:
        for path in (self._stack.image.root / "app").iterdir():
            self._put(path, f"/app/{path.name}")
        for target, source in self._mounts().items():
            if source:
                self._put(self._stack.sources / source, target)
            else:
                Path(f"{self._folder}{target}").mkdir(parents=True, exist_ok=True)
        command = [*self.settings.get("entrypoint", []), *self.settings["command"]]
        self._child = Child(
            [self.here(word) for word in command],
            self._folder / "log",
            env=self.environment(),
            cwd=self._directory,
        )

    def _put(self, source: Path, target: str) -> None:
        """A folder as it is, and a file with what has to be otherwise on this machine."""
        path = Path(f"{self._folder}{target}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if source.is_dir():
            path.symlink_to(source)
        else:
            path.write_text(self.here(source.read_text()))

    @property
    def _directory(self) -> str:
        directory = self.settings.get("working_dir")
        return self.here(directory) if directory else str(self._folder)

    def is_healthy(self) -> bool:
        """What its health check says."""
        assert self.child.running, f"{self.name} has ended\n{self.child.output[-4000:]}"
        kind, *words = map(self.here, self.settings["healthcheck"]["test"])
        command = {"CMD": words, "CMD-SHELL": ["sh", "-c", *words]}[kind]
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment()},
            cwd=self._directory,
            capture_output=True,
            timeout=30,
        )
        return done.returncode == 0

    def wait_healthy(self) -> None:
        Deadline(60).until(
            self.is_healthy, lambda: f"{self.name}\n{self.child.output[-4000:]}", every=0.5
        )

    def stop(self) -> None:
        """As the engine does: SIGTERM to the first process, which has its time to end."""
        self.child.signal(signal.SIGTERM)
        grace = self.settings.get("stop_grace_period", "10s")
        self.child.wait(float(grace.removesuffix("s")))

    def close(self) -> None:
        if self._child is not None:
            self._child.stop()


class ComposeStack:
    """All services, in the order of their dependencies.

    Args:
        folder: for what they write.
        files: where they are from.
        sources: the folder that those files lie in, with what they mount.
    """

    def __init__(
        self,
        image: Image,
        folder: Path,
        *,
        files: tuple[str, ...],
        sources: Path,
    ) -> None:
        self.image = image
        self.folder = folder
        self.sources = sources
        self.services = {
            name: Service(name, settings, self)
            for name, settings in compose_file(files)["services"].items()
        }

    def start(self) -> ComposeStack:
        waiting = dict(self.services)
        healthy: set[str] = set()
        while waiting:
            ready = [s for s in waiting.values() if healthy >= set(_dependencies(s.settings))]
            assert ready, f"they wait for one another: {list(waiting)}"
            for service in ready:
                waiting.pop(service.name).start()
            for service in ready:
                service.wait_healthy()
                healthy.add(service.name)
        return self

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self['redis'].port}/0"

    def connect(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url)

    def close(self) -> None:
        for service in self.services.values():
            service.close()


def _dependencies(settings: Mapping[str, Any]) -> list[str]:
    needed: Mapping[str, Any] = settings.get("depends_on", {})
    assert all(each == {"condition": "service_healthy"} for each in needed.values())
    return list(needed)
