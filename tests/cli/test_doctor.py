"""doctor: a fault for each finding, on real servers."""

from __future__ import annotations

import contextlib
import json
import socket
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from streamy_redis import StreamConfig, StreamManager
from streamy_redis.doctor import Finding, Level, examine_endpoint, examine_redis
from tests.child import Child, new_folder
from tests.conftest import SharedServers
from tests.deadline import Deadline
from tests.nginx import shipped
from tests.ports import free_port
from tests.proxy import LossyProxy
from tests.security.conftest import PERMISSIONS, RULES, GuardedServer, guarded
from tests.servers import RedisServer, wheel_binary
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment

from .conftest import Commands, Result
from .nginx import InFront

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
    done = commands.call("doctor", "--json")

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
    Commands(redis_server.url, prefix).call("doctor")

    with redis_server.connect() as store:
        assert store.keys() == []


def test_text_has_a_line_for_each_finding(commands: Commands):
    done = commands.call("doctor")

    assert len([line for line in done.stdout.splitlines() if line.startswith("ok ")]) == 6


def test_redis_that_is_away_is_3_and_its_password_is_not_shown(commands: Commands):
    commands.url = f"redis://user:secret@127.0.0.1:{free_port()}/0"

    failed = commands.call("doctor")

    assert failed.returncode == 3
    assert failed.stdout.startswith("problem  redis connection")
    assert "user@127.0.0.1" in failed.stdout
    assert "secret" not in failed.stdout + failed.stderr


def test_a_wrong_password_is_told(guarded: GuardedServer):
    guarded.allow(RULES)

    failed = Commands(guarded.url(password="wrong"), "streamy").call("doctor", "--json")

    assert failed.returncode == 3
    assert "refuses the login" in findings(failed)["redis", "connection"]["text"]


def test_the_documented_user_has_all_that_is_needed(guarded: GuardedServer):
    guarded.allow(RULES)

    done = Commands(guarded.url(), "streamy").call("doctor", "--json")

    found = findings(done)
    assert (done.returncode, problems(done)) == (0, [])
    # It may not read the configuration, and is told so.
    assert found["redis", "pubsub buffer"]["level"] == "note"
    assert found["redis", "delivery"]["level"] == "ok"


def faults(url: str, prefix: str = "streamy") -> list[Finding]:
    return [found for found in examine_redis(url, prefix) if found.level is Level.PROBLEM]


@pytest.mark.parametrize("left_out", PERMISSIONS)
def test_a_missing_permission_is_named_with_the_line_that_grants_it(
    guarded: GuardedServer, left_out: str
):
    guarded.allow([rule for rule in RULES if rule != left_out])

    [found] = faults(guarded.url())

    assert (found.check, found.advice) == ("permissions", f"ACL SETUSER streamy {left_out}")
    # The advice is good.
    guarded.admin.execute_command(*found.advice.split())
    assert faults(guarded.url()) == []


def test_a_missing_permission_is_1(guarded: GuardedServer):
    guarded.allow([rule for rule in RULES if rule != "+publish"])

    failed = Commands(guarded.url(), "streamy").call("doctor")

    assert failed.returncode == 1
    assert "-> ACL SETUSER streamy +publish\n" in failed.stdout


def test_small_buffers_and_eviction_are_noted(redis_server: RedisServer, prefix: str):
    with redis_server.connect() as store:
        store.config_set("client-output-buffer-limit", "pubsub 65536 0 0")
        store.config_set("maxmemory", "100mb")
        store.config_set("maxmemory-policy", "allkeys-lru")

    done = Commands(redis_server.url, prefix).call("doctor", "--json")

    found = findings(done)
    assert done.returncode == 0
    for check in ("pubsub buffer", "eviction"):
        assert found["redis", check]["level"] == "note"
        assert found["redis", check]["advice"]


def test_a_replica_is_told(redis_server: RedisServer, prefix: str):
    with redis_server.connect() as store:
        store.replicaof("127.0.0.1", free_port())

    failed = Commands(redis_server.url, prefix).call("doctor", "--json")

    assert failed.returncode == 1
    [found] = problems(failed)
    assert found["check"] == "role"


def test_an_old_server_is_told(redis_server: RedisServer, prefix: str):
    with redis_server.connect() as store:
        version = store.info()["valkey_version"]
    with LossyProxy(redis_server.port) as proxy:
        proxy.replace(version.encode(), b"6.0.16".ljust(len(version))[: len(version)])

        [found] = faults(proxy.url, prefix)

    assert found.check == "version"
    assert "too old" in found.text


def test_a_server_without_hello_is_asked_otherwise(prefix: str):
    with RedisServer(arguments=["--rename-command", "HELLO", "HI"]) as server:
        found = {each.check: each for each in examine_redis(server.url, prefix)}

    assert found["version"].level is Level.OK
    assert found["delivery"].level is Level.OK


def test_a_cluster_is_told(prefix: str):
    # By itself it takes a bus port 10000 above its own, which there may not be.
    arguments = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    with RedisServer(arguments=arguments) as server:
        [found] = faults(server.url, prefix)

    assert found.check == "mode"
    assert "cluster" in found.text


def test_a_sentinel_is_told(prefix: str):
    folder, port = new_folder("sentinel"), free_port()
    config = folder / "config"
    config.write_text(f"port {port}\nbind 127.0.0.1\ndir {folder}\n")
    sentinel = Child([wheel_binary(), str(config), "--sentinel"], folder / "log")
    Deadline(10).until(lambda: "Sentinel ID is" in sentinel.output, lambda: sentinel.output)

    [found] = faults(f"redis://127.0.0.1:{port}", prefix)

    sentinel.stop()
    assert found.check == "mode"
    assert "sentinel" in found.text


# An endpoint


def new_site(kind: str, url: str, prefix: str) -> Site:
    env = environment(url, prefix=prefix, **CONFIG)
    return Site(WebServer(KINDS[kind], app_for(KINDS[kind]), env=env).start(), url, prefix)


@pytest.fixture(scope="module")
def sites(shared_servers: SharedServers) -> Iterator[dict[str, Site]]:
    """One of each kind, for all tests."""
    url, prefix = shared_servers.url("valkey"), f"t-{uuid.uuid4().hex[:12]}"
    made = {kind: new_site(kind, url, prefix) for kind in ("gunicorn-gthread", "uvicorn")}
    yield made
    for site in made.values():
        site.close()


@pytest.fixture(params=["gunicorn-gthread", "uvicorn"])
def site(request: pytest.FixtureRequest, sites: dict[str, Site]) -> Site:
    return sites[request.param]


@pytest.fixture
def flask_site(sites: dict[str, Site]) -> Site:
    return sites["gunicorn-gthread"]


@pytest.fixture
def room() -> str:
    """A stream that no other test uses, and that stands in a URL as people type it."""
    return f"Räume {uuid.uuid4().hex[:8]}"


def commands_of(site: Site) -> Commands:
    return Commands(site.redis_url, site.prefix)


def examine(site: Site, room: str, base: str = "", *arguments: str) -> Result:
    url = f"{base or site.server.url}/events/{room}"
    return commands_of(site).call("doctor", url, "--json", *(arguments or ("--stream", room)))


def test_an_endpoint_that_streams_has_no_problem(site: Site, room: str):
    done = examine(site, room)

    found = findings(done)
    assert (done.returncode, problems(done)) == (0, [])
    assert found["endpoint", "first byte"]["level"] == "ok"
    assert found["endpoint", "delivery"]["level"] == "ok"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_nginx_as_it_is_does_no_harm(site: Site, room: str, version: str):
    with InFront(site.server.url, version=version) as proxy:
        done = examine(site, room, proxy.url)

    assert (done.returncode, problems(done)) == (0, [])
    assert findings(done)["endpoint", "delivery"]["level"] == "ok"


def test_an_nginx_that_buffers_is_found(flask_site: Site, room: str):
    directive = "proxy_ignore_headers X-Accel-Buffering;"
    with InFront(flask_site.server.url, directive, version="1.0") as proxy:
        failed = examine(flask_site, room, proxy.url)

    found = findings(failed)["endpoint", "delivery"]
    assert failed.returncode == 1
    assert found["level"] == "problem"
    assert "KiB of events had been sent" in found["text"]
    assert "proxy_buffering off" in found["advice"]


def test_an_nginx_without_a_server_is_found(site: Site, room: str):
    nowhere = f"127.0.0.1:{free_port()}"
    replicas = {"flask-1:8000": nowhere, "flask-2:8000": nowhere}
    with shipped(replicas, {"/stream/": "/events/"}) as proxy:
        done = examine(site, room, proxy.url)

    found = findings(done)["endpoint", "first byte"]
    assert (done.returncode, found["level"]) == (1, "problem")
    assert "while no server does" in found["text"]


_COMPRESSING = "gzip on; gzip_types text/event-stream; gzip_min_length 0; gzip_proxied any;"


def test_an_nginx_that_compresses_is_found(flask_site: Site, room: str):
    with InFront(flask_site.server.url, _COMPRESSING) as proxy:
        done = examine(flask_site, room, proxy.url)

    found = findings(done)["endpoint", "content-encoding"]
    assert (found["level"], found["text"].partition(":")[0]) == ("note", "gzip")
    assert "gzip_types" in found["advice"]


def test_a_proxy_without_an_application_is_found(flask_site: Site, room: str):
    with InFront(f"http://127.0.0.1:{free_port()}") as proxy:
        failed = examine(flask_site, room, proxy.url)

    assert failed.returncode == 1
    assert findings(failed)["endpoint", "status"]["text"].startswith("502")


def test_what_leads_elsewhere_or_wants_a_login_is_found(flask_site: Site, room: str):
    with InFront(
        flask_site.server.url,
        "if ($http_cookie = '') { return 302 /login; }",
        "if ($http_cookie != 'session=abc') { return 403; }",
    ) as proxy:
        outside = examine(flask_site, room, proxy.url)
        wrong = examine(flask_site, room, proxy.url, "-H", "Cookie: session=x")
        inside = examine(flask_site, room, proxy.url, "--stream", room, "-H", "COOKIE:session=abc")

    [found] = problems(outside)
    assert found["text"].startswith("302, which leads to")
    assert "/login" in found["text"]
    [found] = problems(wrong)
    assert found["text"].startswith("403")
    assert "--header" in found["advice"]
    assert (inside.returncode, problems(inside)) == (0, [])


def test_a_certificate_that_nobody_trusts_is_found(flask_site: Site, room: str):
    with InFront(flask_site.server.url, is_tls=True) as proxy:
        failed = examine(flask_site, room, proxy.url)
        # OpenSSL reads the variable itself: it has to be the process's.
        trusted = commands_of(flask_site).run(
            "doctor", f"{proxy.url}/events/{room}", "--json", SSL_CERT_FILE=proxy.authority
        )
        plain = examine(flask_site, room, proxy.url.replace("https", "http"))

    [found] = problems(failed)
    assert (found["check"], failed.returncode) == ("connection", 1)
    assert "certificate" in found["text"]
    assert "SSL_CERT_FILE" in found["advice"]
    assert problems(trusted) == []
    [found] = problems(plain)
    assert found["text"].startswith("400")


def test_nobody_at_the_address_is_found(flask_site: Site, room: str):
    failed = examine(flask_site, room, f"http://127.0.0.1:{free_port()}")

    [found] = problems(failed)
    assert (found["check"], failed.returncode) == ("connection", 1)
    assert "can't be reached" in found["text"]


def test_what_is_no_web_server_is_found(flask_site: Site, room: str):
    failed = examine(flask_site, room, flask_site.redis_url.replace("redis", "http", 1)[:-2])

    [found] = problems(failed)
    assert (found["check"], failed.returncode) == ("status", 1)
    assert "no response" in found["text"]


def test_another_path_is_found(flask_site: Site):
    url = f"{flask_site.server.url}/ping"
    commands = commands_of(flask_site)
    missing = commands.call("doctor", f"{url}/nothing", "--stream", "room", "--json")
    other = commands.call("doctor", url, "--stream", "room", "--json")

    [found] = problems(missing)
    assert found["text"].startswith("404")
    # Nothing else is said of what is no stream, and nothing sent.
    [found] = problems(other)
    assert found["check"] == "content-type"
    assert ("endpoint", "delivery") not in findings(other)


def test_an_ended_stream_is_told(flask_site: Site, room: str):
    flask_site.streams.end_stream(room)

    failed = examine(flask_site, room)

    assert failed.returncode == 1
    assert "has ended" in findings(failed)["endpoint", "delivery"]["text"]


def test_without_a_stream_it_looks_at_the_response_only(flask_site: Site, room: str):
    url = f"{flask_site.server.url}/events/{room}"
    done = commands_of(flask_site).call("doctor", url, "--json")

    assert done.returncode == 0
    assert findings(done)["endpoint", "delivery"]["level"] == "note"


def test_leaves_no_trace_in_the_stream(flask_site: Site, room: str):
    config = StreamConfig(prefix=flask_site.prefix, history_length=10, history_ttl=90_000)
    with StreamManager(flask_site.redis_url, config=config) as streams:
        streams.send_events(room, [str(n) for n in range(10)])
        before = streams.info(room)

        assert examine(flask_site, room).returncode == 0

        after = streams.info(room)
    assert (after.length, after.first_event_id, after.last_event_id) == (
        before.length,
        before.first_event_id,
        before.last_event_id,
    )
    assert after.ttl
    assert after.ttl > 80_000


def test_waits_for_what_is_replayed(flask_site: Site, room: str):
    # Many pages: what comes behind them is not live yet when stream-open is there.
    for _ in range(10):
        flask_site.streams.send_events(room, ["x" * 100_000] * 10)
    url = f"{flask_site.server.url}/events/{room}?replay=all"

    done = commands_of(flask_site).call("doctor", url, "--stream", room, "--json")

    assert (done.returncode, problems(done)) == (0, [])


def test_pages_are_not_told(flask_site: Site, room: str):
    with flask_site.browser(room) as browser:
        browser.wait_open()

        assert examine(flask_site, room).returncode == 0

        flask_site.streams.send_event(room, "the first")
        browser.wait_for(lambda b: b.of_type("message"), 10, "a message")
        assert [event.data for event in browser.of_type("message")] == ["the first"]


# What the doctor has to wait for


@pytest.fixture(scope="module")
def waited(sites: dict[str, Site]) -> dict[str, dict[str, Finding]]:
    """What is found in each of these cases, by its check; all at once."""
    site = sites["gunicorn-gthread"]
    url, prefix = site.redis_url, site.prefix
    buffering = f"{_COMPRESSING} proxy_ignore_headers X-Accel-Buffering;"

    def endpoint(base: str, stream_id: str | None = "room") -> Iterable[Finding]:
        return examine_endpoint(f"{base}/events/room", {}, url, prefix, stream_id)

    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(InFront(site.server.url, buffering))
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        hanging = stack.enter_context(RedisServer())
        hanging.hang()
        alone = new_site("gunicorn-gthread", f"redis://127.0.0.1:{free_port()}/0", prefix)
        stack.callback(alone.close)
        pool = stack.enter_context(ThreadPoolExecutor())
        cases = {
            "hanging": examine_redis(hanging.url, prefix),
            "compressing and buffering": endpoint(proxy.url),
            "silent": endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}"),
            "without Redis": endpoint(alone.server.url),
            "another stream": endpoint(site.server.url, "another"),
            "without TLS": examine_redis(url.replace("redis://", "rediss://"), prefix),
        }
        found = zip(cases, pool.map(list, cases.values()), strict=True)
        return {case: {each.check: each for each in findings} for case, findings in found}


def test_an_nginx_that_compresses_and_buffers_is_found(waited: dict[str, dict[str, Finding]]):
    found = waited["compressing and buffering"]["delivery"]

    assert found.level is Level.PROBLEM
    assert "KiB of events had been sent" in found.text
    assert "gzip_types" in found.advice


def test_a_server_that_never_answers_is_found(waited: dict[str, dict[str, Finding]]):
    [found] = waited["silent"].values()

    assert (found.check, found.level) == ("status", Level.PROBLEM)
    assert "no answer within" in found.text
    assert "nor after 64 KiB" in found.text


def test_an_application_without_its_redis_is_found(waited: dict[str, dict[str, Finding]]):
    found = waited["without Redis"]["first byte"]

    assert found.level is Level.PROBLEM
    assert "can't reach its Redis" in found.text


def test_another_stream_or_prefix_is_found(waited: dict[str, dict[str, Finding]], flask_site: Site):
    found = waited["another stream"]["delivery"]

    assert found.level is Level.PROBLEM
    assert "'another'" in found.text
    assert "prefix" in found.advice
    # Though a lot was sent to it.
    assert not flask_site.streams.info("another").exists


def test_a_redis_without_tls_is_told(waited: dict[str, dict[str, Finding]]):
    [found] = waited["without TLS"].values()

    assert (found.check, found.level) == ("connection", Level.PROBLEM)
    assert "TLS" in found.advice


def test_a_redis_that_hangs_is_told_in_time(waited: dict[str, dict[str, Finding]]):
    [found] = waited["hanging"].values()

    assert (found.check, found.level) == ("connection", Level.PROBLEM)
