"""Settings with which no connection can ever be made: one error that names the setting, at once."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
import redis
import redis.asyncio

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamManager
from tests.deadline import Deadline

from .conftest import Shell

pytestmark = pytest.mark.one_server

# What is known without connecting, and what the error has to name.
WRONG = {
    "rediss://:secret@127.0.0.1:1/0?ssl_cert_reqs=CERT_NONE": "ssl_cert_reqs",
    "redis://:secret@127.0.0.1:1/0?ssl=true": "ssl.*rediss://",
    "redis://:secret@127.0.0.1:1/0?ssl_cert_reqs=none": "ssl_cert_reqs",
    "redis://:secret@127.0.0.1:1/0?socket_timeout=5s": "socket_timeout",
    "redis://:secret@127.0.0.1:1/0?virtual_host=3": "virtual_host",
    "redis://:secret@127.0.0.1:1/0?virtual_host=3&timeout=20": "virtual_host|timeout",
    "redis://:secret@127.0.0.1:1/0?health_check_interval=often": "health_check_interval",
    "redis://:secret@127.0.0.1:1/0?db=two": "db",
    "redis://:secret@127.0.0.1:1/0\n": "line break",
    "redis://:secret@127.0.0.1:1/0 ": "blank",
    "redis://:secret@127.0.0.1:1/two": "database",
    "redis://:secret@127.0.0.1:port/0": "port",
    "redis://:secret@127.0.0.1:66666/0": "port",
    "redis://:sec/ret@127.0.0.1:1/0": "percent-encoded",
    "redis://:sec#ret@127.0.0.1:1/0": "percent-encoded",
    # What looks like a host, a database or an argument is the rest of a password.
    "redis://user:p@secret/word@127.0.0.1:1/0": "percent-encoded.*%40.*quote",
    "redis://user:p@secret/3?db=1@127.0.0.1:1/0": "percent-encoded",
    "redis://user:p@ss?secret=1@127.0.0.1:1/0": "percent-encoded",
    "rediss://user:1/2?secret@127.0.0.1:1/0": "percent-encoded",
    "redis://127.0.0.1:1/0?password=p@secret": "percent-encoded",
    "unix://:secret@x/ret@/tmp/redis.sock": "percent-encoded",
    "unix:///tmp/redis.sock?ssl=true": "ssl",
    "unix://": "unix:///run/redis.sock",
    "unix://:secret@run/redis.sock": "unix:///run/redis.sock",
    "https://:secret@127.0.0.1:1/0": "redis://",
}
# What redis-py finds only at connecting.
WRONG_LATER = {
    "rediss://:secret@127.0.0.1:1/0?ssl_ca_certs=/nowhere/ca.pem": "ssl_ca_certs.*/nowhere/ca.pem",
    "rediss://:secret@127.0.0.1:1/0?ssl_certfile=/nowhere/it.pem": "ssl_certfile",
    "rediss://:secret@127.0.0.1:1/0?ssl_ca_path=/nowhere": "ssl_ca_path",
}


@pytest.mark.parametrize("url", WRONG)
@pytest.mark.parametrize("kind", [StreamManager, AsyncStreamManager])
def test_it_is_refused_where_the_manager_is_made(kind: type, url: str):
    with pytest.raises(ValueError, match=WRONG[url]) as caught:
        kind(url)

    assert "secret" not in str(caught.value)
    assert "ret@" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:p%40ss@127.0.0.1:1",
        "redis://127.0.0.1:1/",
        "redis://localhost?db=3&socket_timeout=5&max_connections=10&client_name=web",
        "rediss://127.0.0.1:1/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        "unix:///tmp/redis.sock?db=1",
        "unix:///run/redis@main/redis.sock",
        "redis://127.0.0.1:1/0?username=me%40example.org&password=p%40s%2Fs",
        "redis://[::1]:1/0",
        "memory://",
    ],
)
@pytest.mark.parametrize("kind", [StreamManager, AsyncStreamManager])
def test_what_can_work_is_taken(kind: type, url: str):
    assert kind(url)


def refused_at_once(call: Any) -> str:
    start = time.monotonic()
    with pytest.raises(RedisUnavailable) as caught:
        call()
    assert time.monotonic() - start < 1
    return str(caught.value)


@pytest.mark.parametrize("variable", ["STREAMY_REDIS_URL", "REDIS_URL"])
@pytest.mark.parametrize("kind", [StreamManager, AsyncStreamManager])
def test_what_can_not_work_in_the_environment_is_refused_when_the_manager_is_made(
    kind: type, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.delenv("STREAMY_REDIS_URL", raising=False)
    for url, said in WRONG.items():
        monkeypatch.setenv(variable, url)
        with pytest.raises(ValueError, match=said) as caught:
            kind()
        assert "secret" not in str(caught.value)
        # It isn't asked for where somebody names another.
        assert kind("memory://")


@pytest.mark.parametrize("url", [*WRONG, *WRONG_LATER])
def test_where_the_environment_changes_later_the_first_call_says_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, url: str
):
    monkeypatch.setenv("STREAMY_REDIS_URL", "redis://127.0.0.1:1")
    streams = shell.unnamed_manager()
    monkeypatch.setenv("STREAMY_REDIS_URL", url)

    for call in (
        lambda: streams.send_event("room", "x"),
        lambda: streams.subscribe("room").__enter__(),
    ):
        with pytest.raises(RedisUnavailable, match=(WRONG | WRONG_LATER)[url]) as caught:
            call()
        assert "secret" not in str(caught.value)


def test_whoever_waits_makes_one_line_in_the_log(shell: Shell, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "streamy_redis")
    streams = shell.manager(next(iter(WRONG_LATER)))

    for _ in range(4):
        refused_at_once(lambda: streams.subscribe("room").__enter__())
        Deadline(0.5).stays(lambda: True)

    told = [record.getMessage() for record in caplog.records if record.levelno > logging.INFO]
    assert len(told) == 1
    assert "ssl_ca_certs" in told[0]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_client_of_the_caller_s_is_looked_at_too(shell: Shell):
    module = redis.asyncio if shell.is_async else redis
    client = module.Redis(ssl=True, ssl_cert_reqs="CERT_NONE", password="secret")

    said = refused_at_once(lambda: shell.manager(client).send_event("room", "x"))

    assert "ssl_cert_reqs" in said
    assert "secret" not in said


def test_what_redis_py_stumbles_over_is_an_error_of_ours(shell: Shell):
    module = redis.asyncio if shell.is_async else redis
    port = redis.connection.parse_url(shell.url)["port"]
    client = module.Redis(port=port, credential_provider="a password")

    said = refused_at_once(lambda: shell.manager(client).send_event("room", "x"))

    assert "setting" in said
