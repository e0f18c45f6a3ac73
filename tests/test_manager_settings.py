"""Where a manager finds its Redis, and how it takes the settings of Flask apps."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from flask import Flask

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamConfig, StreamManager

from .servers import RedisServer

VARIABLES = ("STREAMY_REDIS_URL", "REDIS_URL")


class Databases:
    """The databases of one server: which of them was written to?"""

    def __init__(self, url: str, prefix: str) -> None:
        self._base = url.rpartition("/")[0]
        self._prefix = prefix

    def url(self, number: int) -> str:
        return f"{self._base}/{number}"

    def written(self) -> list[int]:
        found = []
        for number in range(1, 6):
            with contextlib.closing(redis.Redis.from_url(self.url(number))) as store:
                keys = list(store.scan_iter(f"{self._prefix}*"))
                found += [number] * bool(keys)
                if keys:
                    store.delete(*keys)
        return found


@pytest.fixture
def databases(redis_url: str, prefix: str) -> Databases:
    return Databases(redis_url, prefix)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, databases: Databases) -> None:
    monkeypatch.setenv("STREAMY_REDIS_URL", databases.url(3))
    monkeypatch.setenv("REDIS_URL", databases.url(4))


@pytest.fixture
def config(prefix: str) -> StreamConfig:
    return StreamConfig(prefix=prefix)


def flask_app(**settings: object) -> Flask:
    app = Flask(__name__)
    app.config.update(settings)
    return app


def test_the_argument_wins_over_everything(
    environment: None, databases: Databases, config: StreamConfig
):
    app = flask_app(STREAMY_REDIS_URL=databases.url(2))
    with StreamManager(databases.url(1), app=app, config=config) as streams:
        streams.send_event("room", "x")

    assert databases.written() == [1]


def test_the_app_s_setting_wins_over_the_environment(
    environment: None, databases: Databases, config: StreamConfig
):
    app = flask_app(STREAMY_REDIS_URL=databases.url(2))
    with StreamManager(app=app, config=config) as streams:
        streams.send_event("room", "x")

    assert databases.written() == [2]


def test_streamy_redis_url_wins_over_redis_url(
    environment: None, databases: Databases, config: StreamConfig
):
    with StreamManager(config=config) as streams:
        streams.send_event("room", "x")

    assert databases.written() == [3]


def test_redis_url_is_the_last_variable(
    environment: None,
    databases: Databases,
    config: StreamConfig,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("STREAMY_REDIS_URL")
    with StreamManager(config=config) as streams:
        streams.send_event("room", "x")

    assert databases.written() == [4]


async def _send(config: StreamConfig) -> str:
    async with AsyncStreamManager(config=config) as streams:
        return await streams.send_event("room", "x")


def test_an_async_manager_reads_the_same_variables(
    environment: None, databases: Databases, config: StreamConfig
):
    asyncio.run(_send(config))

    assert databases.written() == [3]


@pytest.fixture
def default_server() -> Iterator[redis.Redis]:
    """Whatever listens at the default address; a server of ours if nobody does."""
    own = None
    try:
        socket.create_connection(("localhost", 6379), timeout=2).close()
    except OSError:
        own = RedisServer(port=6379).start()
    store = redis.Redis(host="localhost", port=6379, db=0)
    yield store
    store.close()
    if own is not None:
        own.close()


def test_without_any_of_them_it_is_localhost(default_server: redis.Redis, prefix: str):
    with StreamManager(config=StreamConfig(prefix=prefix)) as streams:
        streams.send_event("room", "x")
        assert len(list(default_server.scan_iter(f"{prefix}*"))) == 1
        assert streams.delete_stream("room")


def test_init_app_comes_later_and_reads_the_settings(databases: Databases, prefix: str):
    app = flask_app(
        STREAMY_REDIS_URL=databases.url(5), STREAMY_PREFIX=prefix, STREAMY_HISTORY_LENGTH=2
    )
    streams = StreamManager()
    streams.init_app(app)

    streams.send_events("room", ["a", "b", "c"])

    assert streams.info("room").length == 2
    assert databases.written() == [5]
    assert "streamy_redis" in app.extensions
    streams.close()


def test_one_manager_serves_several_apps_that_share_its_redis(databases: Databases, prefix: str):
    streams = StreamManager(config=StreamConfig(prefix=prefix))
    for _ in range(2):
        streams.init_app(flask_app(STREAMY_REDIS_URL=databases.url(2)))

    streams.send_event("room", "x")

    assert databases.written() == [2]
    streams.close()


def test_a_factory_may_name_others_each_time_while_no_stream_is_open(
    environment: None, databases: Databases, prefix: str
):
    streams = StreamManager(config=StreamConfig(prefix=prefix))
    for number, settings in (
        (1, {"STREAMY_REDIS_URL": databases.url(1), "STREAMY_HISTORY_LENGTH": 1}),
        # Nothing of what the one before named: each is an app of its own.
        (2, {"STREAMY_REDIS_URL": databases.url(2)}),
        (3, {}),
        (3, {"STREAMY_PREFIX": f"{prefix}-3"}),
    ):
        app = flask_app(**settings)
        streams.init_app(app)
        with app.app_context():
            streams.send_events("room", ["x", "y"])
            assert streams.info("room").length == (1 if number == 1 else 2)
        assert databases.written() == [number]
    streams.close()


def test_another_redis_or_setting_while_a_stream_is_open_is_an_error(
    databases: Databases, prefix: str
):
    app = flask_app(STREAMY_REDIS_URL=databases.url(1), STREAMY_PREFIX=prefix)
    streams = StreamManager(app=app)
    with streams.subscribe("room") as events:
        for other in ({"STREAMY_REDIS_URL": databases.url(2)}, {"STREAMY_PREFIX": "other"}):
            with pytest.raises(RuntimeError, match=r"(?i)redis"):
                streams.init_app(flask_app(**other))
        # The same again, and one that names nothing.
        streams.init_app(flask_app(STREAMY_REDIS_URL=databases.url(1), STREAMY_PREFIX=prefix))
        streams.init_app(flask_app())
        streams.send_event("room", "x")
        assert next(events).data == "x"

    assert databases.written() == [1]
    streams.close()


def test_an_open_writer_keeps_what_it_was_opened_with(databases: Databases, prefix: str):
    streams = StreamManager()
    streams.init_app(flask_app(STREAMY_REDIS_URL=databases.url(1), STREAMY_PREFIX=prefix))
    other = flask_app(STREAMY_REDIS_URL=databases.url(2), STREAMY_PREFIX=prefix)
    with streams.writer("room", 5.0) as writer:
        for text in ("", "text"):
            writer.write(text)
            with pytest.raises(RuntimeError, match="streams open"):
                streams.init_app(other)
        streams.init_app(flask_app())

    assert databases.written() == [1]
    streams.init_app(other)
    streams.close()


def test_an_app_that_names_nothing_keeps_its_own_settings_when_others_come(
    databases: Databases, prefix: str
):
    streams = StreamManager(databases.url(1), config=StreamConfig(prefix=prefix))
    plain = flask_app()
    streams.init_app(flask_app(STREAMY_HISTORY_LENGTH=1))
    streams.init_app(plain)
    streams.init_app(flask_app(STREAMY_HISTORY_LENGTH=2))

    with plain.app_context():
        streams.send_events("room", [1, 2, 3])
        assert streams.info("room").length == 3
    assert databases.written() == [1]
    streams.close()


def test_an_app_is_never_given_the_redis_of_another(databases: Databases, prefix: str):
    first = flask_app(STREAMY_REDIS_URL=databases.url(1), STREAMY_PREFIX=prefix)
    second = flask_app(STREAMY_REDIS_URL=databases.url(2), STREAMY_PREFIX=prefix)
    streams = StreamManager()
    streams.init_app(first)
    streams.init_app(second)
    streams.send_event("room", "x")

    with first.app_context(), pytest.raises(RuntimeError, match="manager of its own"):
        streams.send_event("room", "x")

    assert databases.written() == [2]
    # Closed, it is free for either.
    streams.close()
    with first.app_context():
        streams.send_event("room", "x")
    assert databases.written() == [1]
    streams.close()


def test_closing_forgets_what_apps_named(
    databases: Databases, prefix: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STREAMY_REDIS_URL", databases.url(3))
    monkeypatch.setenv("STREAMY_PREFIX", prefix)
    streams = StreamManager()
    streams.init_app(flask_app(STREAMY_REDIS_URL=databases.url(1), STREAMY_PREFIX=f"{prefix}-1"))
    streams.close()

    plain = flask_app()
    streams.init_app(plain)
    with plain.app_context():
        streams.send_event("room", "x")
    streams.send_event("room", "x")

    assert streams.info("room").length == 2
    assert databases.written() == [3]
    streams.close()


def test_what_the_manager_was_made_for_outlives_closing(databases: Databases, prefix: str):
    app = flask_app(STREAMY_REDIS_URL=databases.url(1), STREAMY_PREFIX=prefix)
    streams = StreamManager(app=app)
    streams.send_event("room", "x")
    streams.close()

    streams.send_event("room", "x")

    assert databases.written() == [1]
    streams.close()


# The environment


def test_without_a_config_the_variables_hold_and_an_app_s_settings_over_them(
    databases: Databases, prefix: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STREAMY_PREFIX", prefix)
    monkeypatch.setenv("STREAMY_HISTORY_LENGTH", "3")
    with StreamManager(databases.url(1)) as plain:
        plain.send_events("room", [1, 2, 3, 4])
        assert plain.info("room").length == 3
    with StreamManager(databases.url(1), app=flask_app(STREAMY_HISTORY_LENGTH=2)) as named:
        named.send_event("room", 5)
        assert named.info("room").length == 2
    with StreamManager(databases.url(1), config=StreamConfig(prefix=prefix)) as given:
        given.send_event("room", 6)
        assert given.info("room").length == 3

    assert databases.written() == [1]


def test_an_async_manager_takes_its_settings_from_the_same_variables(
    environment: None, databases: Databases, prefix: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STREAMY_PREFIX", prefix)
    monkeypatch.setenv("STREAMY_HISTORY_LENGTH", "3")

    async def send() -> int:
        async with AsyncStreamManager() as streams:
            await streams.send_events("room", [1, 2, 3, 4])
            return (await streams.info("room")).length

    assert asyncio.run(send()) == 3
    assert databases.written() == [3]


@pytest.mark.parametrize("manager", [StreamManager, AsyncStreamManager])
def test_a_variable_that_is_wrong_is_an_error_when_the_manager_is_made(
    manager: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("STREAMY_MAX_RETRIES", "-1")

    with pytest.raises(ValueError, match=r"STREAMY_MAX_RETRIES.*at least 0"):
        manager()


def test_a_wrong_url_in_the_environment_is_nothing_to_an_app_that_names_one(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("STREAMY_REDIS_URL", "localhost:6379")

    assert StreamManager(app=flask_app(STREAMY_REDIS_URL="memory://"))
    with pytest.raises(ValueError, match="redis://"):
        StreamManager(app=flask_app())


@pytest.mark.parametrize("url", [5, 0, False, b"redis://localhost", ["redis://localhost"]])
def test_a_url_of_an_app_that_is_no_text_is_an_error_that_names_the_setting(url: object):
    with pytest.raises(TypeError, match="STREAMY_REDIS_URL must be a str, not "):
        StreamManager(app=flask_app(STREAMY_REDIS_URL=url))


def test_init_app_connects_and_starts_nothing():
    app = flask_app(STREAMY_REDIS_URL="redis://127.0.0.1:1/0")

    streams = StreamManager(app=app)

    with pytest.raises(RedisUnavailable):
        streams.send_event("room", "x")
    streams.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("STREAMY_HISTORY_LENGTH", -1),
        ("STREAMY_KEEP_ALIVE_INTERVAL", "often"),
        ("STREAMY_RETRY_INTERVAL", (3, 1)),
        ("STREAMY_NO_SUCH_THING", 1),
    ],
)
def test_a_bad_setting_is_an_error_that_names_it(setting: str, value: object):
    with pytest.raises((ValueError, TypeError), match=f"(?i){setting[8:]}"):
        StreamManager(app=flask_app(**{setting: value}))


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis//x"])
def test_a_url_of_another_scheme_is_an_error_at_once_or_names_itself(url: str):
    with pytest.raises((ValueError, TypeError)):
        StreamManager(url).send_event("room", "x")
