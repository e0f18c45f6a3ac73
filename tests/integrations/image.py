"""What the Dockerfile builds, as far as that goes without an engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.web_servers import ROOT

__all__ = ["DOCKERFILE", "Image", "instructions"]

DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> Iterator[tuple[str, str]]:
    """Each with its argument, in the order of the file."""
    text = re.sub(r"^#.*\n|\\\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for line in text.splitlines():
        if line:
            name, argument = line.split(maxsplit=1)
            yield name, " ".join(argument.split())


class Image:
    """Runs the instructions in a folder that stands for the root, of all stages at once.

    Not run: what makes users, which would be of this machine.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self._directory = root

    def build(self) -> Image:
        self.root.mkdir()
        steps = {
            "FROM": self._begin,
            "ENV": self._set,
            "WORKDIR": self._enter,
            "RUN": self._run,
            "COPY": self._copy,
        }
        for name, argument in instructions():
            if name not in ("USER", "EXPOSE", "CMD"):
                steps[name](argument)
        return self

    def _here(self, text: str) -> str:
        return re.sub(r"(?<![\w/])/(?=(app|opt|src)\b)", f"{self.root}/", text)

    def _begin(self, base: str) -> None:
        self._directory = self.root

    def _set(self, argument: str) -> None:
        for pair in argument.split():
            name, value = pair.split("=")
            self.env[name] = self._here(value).replace("$PATH", self.env["PATH"])

    def _enter(self, path: str) -> None:
        self._directory = Path(self._here(path))
        self._directory.mkdir(parents=True, exist_ok=True)

    def _run(self, command: str) -> None:
        if command.startswith("useradd "):
            return
        done = subprocess.run(
            ["sh", "-c", self._here(command)],
            cwd=self._directory,
            # Compiling is half of the time that pip takes.
            env={**os.environ, **self.env, "PIP_NO_COMPILE": "1", "PIP_QUIET": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"

    def _copy(self, argument: str) -> None:
        *sources, target = argument.split()
        if sources[0].startswith("--from="):
            # Every stage lies in the same folder.
            assert sources[1:] == [target]
            assert Path(self._here(target)).exists()
            return
        for source in sources:
            self._copy_one(ROOT / source, self._directory / self._here(target))

    def _copy_one(self, source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
