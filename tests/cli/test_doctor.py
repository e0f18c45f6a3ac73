"""doctor: a fault for each finding, on real servers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from streamy_redis import StreamConfig, StreamManager
from tests.nginx import needs_nginx
from tests.ports import free_port
from tests.security.conftest import PERMISSIONS, RULES, GuardedServer, guarded
from tests.servers import RedisServer
from tests.sites import Site

from .conftest import Commands, Result
from .nginx import in_front_of

__all__ = ["guarded"]

Findings = dict[tuple[str, str], dict[str, Any]]


def findings(result: Result) -> Findings:
    """By subject and check; the last one of each."""
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return {(each["subject"], each["check"]): each for each in found}


def problems(result: Result) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in result.stdout.splitlines()]
    return [each for each in found if each["level"] == "problem"]


# Redis


def test_a_redis_without_fault_has_no_problem(commands: Commands):
    done = commands.run("doctor", "--json")

    found = findings(done)
    assert (done.returncode, done.stderr, problems(done)) == (0, "", [])
    assert [check for _, check in found] == [
        "connection",
        "version",
        "permissions",
        "pubsub buffer",
        "eviction",
        "delivery",
    ]
    assert "median of 10" in found["redis", "delivery"]["text"]


def test_leaves_nothing_behind(redis_server: RedisServer, prefix: str):
    Commands(redis_server.url, prefix).run("doctor")

    with redis_server.connect() as store:
        assert store.keys() == []


def test_text_has_a_line_for_each_finding(commands: Commands):
    done = commands.run("doctor")

    assert len([line for line in done.stdout.splitlines() if line.startswith("ok ")]) == 6


def test_redis_that_is_away_is_3_and_its_password_is_not_shown(commands: Commands):
    commands.url = f"redis://user:secret@127.0.0.1:{free_port()}/0"

    failed = commands.run("doctor")

    assert failed.returncode == 3
    assert failed.stdout.startswith("problem  redis connection")
    assert "user@127.0.0.1" in failed.stdout
    assert "secret" not in failed.stdout + failed.stderr


def test_a_redis_that_hangs_is_told_in_time(redis_server: RedisServer, prefix: str):
    redis_server.hang()
    try:
        failed = Commands(redis_server.url, prefix).run("doctor", "--json")
    finally:
        redis_server.go_on()

    assert failed.returncode == 3
    assert findings(failed)["redis", "connection"]["level"] == "problem"


def test_a_wrong_password_is_told(guarded: GuardedServer):
    guarded.allow(RULES)

    failed = Commands(guarded.url(password="wrong"), "streamy").run("doctor", "--json")

    assert failed.returncode == 3
    assert "refuses the login" in findings(failed)["redis", "connection"]["text"]


def test_the_documented_user_has_all_that_is_needed(guarded: GuardedServer):
    guarded.allow(RULES)

    done = Commands(guarded.url(), "streamy").run("doctor", "--json")

    found = findings(done)
    assert (done.returncode, problems(done)) == (0, [])
    # It may not read the configuration, and is told so.
    assert found["redis", "pubsub buffer"]["level"] == "note"
    assert found["redis", "delivery"]["level"] == "ok"


@pytest.mark.parametrize("left_out", PERMISSIONS)
def test_a_missing_permission_is_named_with_the_line_that_grants_it(
    guarded: GuardedServer, left_out: str
):
    guarded.allow([rule for rule in RULES if rule != left_out])
    commands = Commands(guarded.url(), "streamy")

    refused = commands.run("doctor", "--json")

    [found] = problems(refused)
    assert refused.returncode == 1
    assert found["check"] == "permissions"
    assert found["advice"] == f"ACL SETUSER streamy {left_out}"
    # The advice is good.
    guarded.admin.execute_command(*found["advice"].split())
    assert commands.run("doctor", "--json").returncode == 0


def test_small_buffers_and_eviction_are_noted(redis_server: RedisServer, prefix: str):
    with redis_server.connect() as store:
        store.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
        store.config_set("maxmemory", "100mb")
        store.config_set("maxmemory-policy", "allkeys-lru")

    done = Commands(redis_server.url, prefix).run("doctor", "--json")

    found = findings(done)
    assert done.returncode == 0
    for check in ("pubsub buffer", "eviction"):
        assert found["redis", check]["level"] == "note"
        assert found["redis", check]["advice"]


def test_a_replica_is_told(redis_server: RedisServer, prefix: str):
    with RedisServer() as primary:
        with redis_server.connect() as store:
            store.replicaof("127.0.0.1", primary.port)

        failed = Commands(redis_server.url, prefix).run("doctor", "--json")

    assert failed.returncode == 1
    assert findings(failed)["redis", "role"]["level"] == "problem"


# An endpoint

NewSite = Callable[..., Site]


@pytest.fixture(params=["gunicorn-gthread", "uvicorn"])
def site(request: pytest.FixtureRequest, new_site: NewSite) -> Site:
    return new_site(request.param)


@pytest.fixture
def flask_site(new_site: NewSite) -> Site:
    return new_site("gunicorn-gthread")


def examine(commands: Commands, base: str, *arguments: str) -> Result:
    arguments = arguments or ("--stream", "room")
    return commands.run("doctor", f"{base}/events/room", "--json", *arguments)


def test_an_endpoint_that_streams_has_no_problem(commands: Commands, site: Site):
    done = examine(commands, site.server.url)

    found = findings(done)
    assert (done.returncode, problems(done)) == (0, [])
    assert found["endpoint", "first byte"]["level"] == "ok"
    assert found["endpoint", "delivery"]["level"] == "ok"


@needs_nginx
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_nginx_as_it_is_does_no_harm(commands: Commands, site: Site, version: str):
    with in_front_of(site.server.url, version=version) as proxy:
        done = examine(commands, proxy.url)

    assert (done.returncode, problems(done)) == (0, [])
    assert findings(done)["endpoint", "delivery"]["level"] == "ok"


@needs_nginx
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_nginx_that_buffers_is_found(commands: Commands, flask_site: Site, version: str):
    directive = "proxy_ignore_headers X-Accel-Buffering;"
    with in_front_of(flask_site.server.url, directive, version=version) as proxy:
        failed = examine(commands, proxy.url)

    found = findings(failed)["endpoint", "delivery"]
    assert failed.returncode == 1
    assert found["level"] == "problem"
    assert "KiB of events had been sent" in found["text"]
    assert "proxy_buffering off" in found["advice"]


@needs_nginx
def test_an_nginx_that_compresses_is_found(commands: Commands, flask_site: Site):
    directives = "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;"
    with in_front_of(flask_site.server.url, directives) as proxy:
        done = examine(commands, proxy.url)

    found = findings(done)["endpoint", "content-encoding"]
    assert (found["level"], found["text"].partition(":")[0]) == ("note", "gzip")
    assert "gzip_types" in found["advice"]


@needs_nginx
def test_an_nginx_that_compresses_and_buffers_is_found(commands: Commands, flask_site: Site):
    directives = (
        "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;"
        "proxy_ignore_headers X-Accel-Buffering;"
    )
    with in_front_of(flask_site.server.url, directives) as proxy:
        failed = examine(commands, proxy.url)

    assert failed.returncode == 1
    assert "gzip_types" in findings(failed)["endpoint", "delivery"]["advice"]


@needs_nginx
def test_a_proxy_without_an_application_is_found(commands: Commands):
    with in_front_of(f"http://127.0.0.1:{free_port()}") as proxy:
        failed = examine(commands, proxy.url)

    assert failed.returncode == 1
    assert findings(failed)["endpoint", "status"]["text"].startswith("502")


def test_nobody_at_the_address_is_found(commands: Commands):
    failed = examine(commands, f"http://127.0.0.1:{free_port()}")

    assert failed.returncode == 1
    assert "can't be reached" in findings(failed)["endpoint", "status"]["text"]


def test_another_path_is_found(commands: Commands, flask_site: Site):
    url = f"{flask_site.server.url}/ping"
    missing = commands.run("doctor", f"{url}/nothing", "--stream", "room", "--json")
    other = commands.run("doctor", url, "--stream", "room", "--json")

    assert (missing.returncode, other.returncode) == (1, 1)
    assert findings(missing)["endpoint", "status"]["text"].startswith("404")
    assert findings(other)["endpoint", "content-type"]["level"] == "problem"


def test_another_stream_or_prefix_is_found(commands: Commands, flask_site: Site):
    failed = examine(commands, flask_site.server.url, "--stream", "another")

    found = findings(failed)["endpoint", "delivery"]
    assert failed.returncode == 1
    assert "'another'" in found["text"]
    assert "prefix" in found["advice"]


def test_an_application_without_its_redis_is_found(commands: Commands, new_site: NewSite):
    site = new_site("gunicorn-gthread", url=f"redis://127.0.0.1:{free_port()}/0")

    failed = examine(commands, site.server.url)

    found = findings(failed)["endpoint", "first byte"]
    assert failed.returncode == 1
    assert "can't reach its Redis" in found["text"]


def test_an_ended_stream_is_told(commands: Commands, flask_site: Site):
    commands.run("end", "room")

    failed = examine(commands, flask_site.server.url)

    assert failed.returncode == 1
    assert "has ended" in findings(failed)["endpoint", "delivery"]["text"]


def test_without_a_stream_it_looks_at_the_response_only(commands: Commands, flask_site: Site):
    done = commands.run("doctor", f"{flask_site.server.url}/events/room", "--json")

    assert done.returncode == 0
    assert findings(done)["endpoint", "delivery"]["level"] == "note"
    assert commands.run("info", "room").returncode == 5


def test_takes_nothing_from_the_stream_that_it_sends_to(commands: Commands, flask_site: Site):
    config = StreamConfig(prefix=commands.prefix, history_length=5000, history_ttl=90_000)
    with StreamManager(commands.url, config=config) as streams:
        streams.send_events("room", [str(n) for n in range(2500)])

        assert examine(commands, flask_site.server.url).returncode == 0

        info = streams.info("room")
    assert info.length > 2500
    assert info.ttl
    assert info.ttl > 80_000


def test_pages_are_not_told(commands: Commands, flask_site: Site):
    with flask_site.browser("room") as browser:
        browser.wait_open()

        assert examine(commands, flask_site.server.url).returncode == 0

        flask_site.streams.send_event("room", "the first")
        browser.wait_for(lambda b: b.of_type("message"), 10, "a message")
        assert [event.data for event in browser.of_type("message")] == ["the first"]
