"""Which releases took part, on which machine."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from .contestants import newer_python
from .peers import nchan
from .stage import redis_binary

__all__ = ["versions"]

_PACKAGES = (
    *("streamy-redis", "starlette", "uvicorn", "uvloop", "httptools", "flask", "gunicorn"),
    *("gevent", "redis", "hiredis", "sse-starlette", "broadcaster", "fastapi", "flask-sse"),
)


def versions() -> dict[str, str]:
    """By name, in the order in which they are shown."""
    found = {"Python": platform.python_version()}
    if newer_python().exists():
        found["Python 3.12+"] = _say(str(newer_python()), "--version").split()[-1]
    found |= {name: version(name) for name in _PACKAGES}
    [field] = [part for part in _say(redis_binary(), "--version").split() if part[:2] == "v="]
    found["Redis"] = field[2:]
    if nchan.absence() is None:
        found["nginx"] = _say("nginx", "-v").strip().rpartition("/")[2]
        if package := _package("libnginx-mod-nchan"):
            found["nchan (Debian)"] = package
    found["Linux"] = platform.release().partition("-")[0]
    found["processor"] = f"{_processor()} with {os.cpu_count()} cores"
    return found


def _processor() -> str:
    """Its model, where Linux knows it."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return model[1] if model else platform.machine()


def _say(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _package(name: str) -> str:
    if shutil.which("dpkg-query") is None:
        return ""
    query = ["dpkg-query", "--show", "--showformat=${Version}", name]
    return subprocess.run(query, capture_output=True, text=True).stdout
