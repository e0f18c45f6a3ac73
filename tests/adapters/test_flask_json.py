"""What a Flask app's JSON provider writes in its views, an event carries."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, jsonify
from flask.json.provider import DefaultJSONProvider, JSONProvider

from streamy_redis import InvalidEvent, StreamConfig, StreamManager

DAY = datetime.date(2026, 11, 28)


@dataclasses.dataclass
class Point:
    x: int


class House(DefaultJSONProvider):
    """One of the application's own: it takes sets."""

    ensure_ascii = False

    @staticmethod
    def default(o: Any) -> Any:
        return sorted(o) if isinstance(o, set) else DefaultJSONProvider.default(o)


class Bare(JSONProvider):
    """As one around another library is: it takes no arguments of the standard one."""

    def dumps(self, obj: Any) -> str:  # type: ignore[override]
        return f'{{"bare": {json.dumps(obj, default=str)}}}'

    def loads(self, s: str | bytes) -> Any:  # type: ignore[override]
        return json.loads(s)


def flask_app(provider: type[JSONProvider] = DefaultJSONProvider) -> Flask:
    app = Flask(__name__)
    app.json = provider(app)
    return app


@pytest.fixture
def streams(redis_url: str, prefix: str) -> Iterator[StreamManager]:
    with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
        yield streams


def sent(streams: StreamManager, value: Any) -> str:
    """The data of an event that carries it."""
    streams.send_event("room", value)
    with streams.subscribe("room", replay=1) as events:
        return next(events).data


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2026, 1, 1),
        DAY,
        uuid.UUID(int=1),
        decimal.Decimal("1.5"),
        Point(1),
        {"b": [DAY, "é"], "a": 1},
    ],
    ids=repr,
)
@pytest.mark.parametrize("provider", [DefaultJSONProvider, House])
def test_an_event_carries_what_a_view_answers(
    streams: StreamManager, provider: type[JSONProvider], value: Any
):
    with flask_app(provider).app_context():
        assert sent(streams, value) == jsonify(value).get_data(as_text=True).rstrip("\n")
        streams.send_events("room", [value])
        streams.end_stream("room", value)


def test_a_provider_of_the_application_s_own_decides(streams: StreamManager):
    with flask_app(House).app_context():
        assert sent(streams, {3, 1}) == "[1,3]"
    with flask_app(Bare).app_context():
        assert sent(streams, DAY) == '{"bare": "2026-11-28"}'
    with flask_app().app_context(), pytest.raises(InvalidEvent, match="set is not JSON"):
        streams.send_event("room", {3, 1})


def test_a_json_encoder_replaces_it(redis_url: str, prefix: str):
    config = StreamConfig(prefix=prefix, json_encoder=lambda value: '"mine"')
    with StreamManager(redis_url, config=config) as streams, flask_app(House).app_context():
        assert sent(streams, DAY) == '"mine"'


def test_jobs_write_as_their_manager_s_app_does_and_others_as_fastapi(streams: StreamManager):
    assert sent(streams, {DAY}) == '["2026-11-28"]'

    streams.init_app(flask_app(Bare))

    # As a worker that pushes no context.
    assert sent(streams, DAY) == '{"bare": "2026-11-28"}'
    # The one that is at work comes before.
    with flask_app(House).app_context():
        assert sent(streams, {3, 1}) == "[1,3]"
    # One later comes before one earlier.
    streams.init_app(flask_app(House))
    assert sent(streams, {3, 1}) == "[1,3]"
    streams.close()
    assert sent(streams, DAY) == '"2026-11-28"'


def test_the_app_that_a_manager_was_made_for_writes_after_closing_too(redis_url: str, prefix: str):
    streams = StreamManager(redis_url, app=flask_app(Bare), config=StreamConfig(prefix=prefix))
    streams.init_app(flask_app(House))
    streams.close()

    assert sent(streams, DAY) == '{"bare": "2026-11-28"}'
    streams.close()


def test_a_writer_s_last_words_are_written_so_too(streams: StreamManager):
    with flask_app().app_context():
        writer = streams.writer("room")
        writer.write("text")
        writer.close({"at": DAY})

    with streams.subscribe("room", replay="all") as events:
        [*_, end] = events
    assert end.json() == {"at": "Sat, 28 Nov 2026 00:00:00 GMT"}


@pytest.mark.parametrize("provider", [DefaultJSONProvider, House, Bare])
@pytest.mark.parametrize(
    "value", [float("nan"), [float("-inf")], {"a": "\ud800"}, {"\udfff": 1}, {(1, 2): 3}], ids=ascii
)
def test_what_json_cannot_carry_is_refused_whoever_writes(
    streams: StreamManager, provider: type[JSONProvider], value: Any
):
    with flask_app(provider).app_context(), pytest.raises(InvalidEvent, match="data"):
        streams.send_event("room", value)
    assert not streams.info("room").exists


def test_what_looks_alike_is_taken(streams: StreamManager):
    text = "NaN, Infinity, \\ud800 and 😀"
    with flask_app().app_context():
        assert json.loads(sent(streams, {"a": text})) == {"a": text}
