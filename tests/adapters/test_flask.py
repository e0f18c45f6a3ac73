"""What get_stream returns is a Flask response like any other."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from flask import Flask, Response
from werkzeug.test import EnvironBuilder

from streamy_redis import InvalidEvent, StreamConfig, StreamManager
from streamy_redis.core.subscriber import Subscriber
from tests.deadline import Deadline
from tests.event_stream import events_of


@pytest.fixture
def streams(redis_url: str, prefix: str) -> Iterator[StreamManager]:
    with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
        yield streams


@pytest.fixture
def app(streams: StreamManager) -> Flask:
    app = Flask(__name__)
    streams.init_app(app)

    @app.get("/<stream_id>")
    def stream(stream_id: str) -> Response:
        return streams.get_stream(stream_id, replay="all")

    return app


def test_it_is_a_response_that_sets_no_connection_header(streams: StreamManager, app: Flask):
    with app.test_request_context("/"):
        response = streams.get_stream("room")

    assert isinstance(response, Response)
    assert response.status_code == 200
    assert "Connection" not in response.headers
    assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"


def test_the_test_client_reads_an_ended_stream_to_its_end(streams: StreamManager, app: Flask):
    streams.send_events("room", ["a", "b"])
    streams.end_stream("room", "bye")

    answer = app.test_client().get("/room")

    assert [e.data for e in events_of(answer.data)] == ["{}", "a", "b", "bye"]


def test_the_test_client_can_leave_an_open_stream(streams: StreamManager, app: Flask):
    answer = app.test_client().get("/room", buffered=False)
    first = next(answer.iter_encoded())
    answer.close()

    assert [e.type for e in events_of(first)] == ["stream-open"]


def test_a_response_that_is_never_served_costs_nothing(streams: StreamManager, app: Flask):
    limited = StreamManager(
        "redis://127.0.0.1:1/0", config=StreamConfig(max_subscribers=1, prefix="x")
    )
    with app.test_request_context("/"):
        for _ in range(5):
            limited.get_stream("room").close()
    limited.close()


def test_a_client_that_is_told_to_stop_leaves_nothing_behind(redis_url: str, prefix: str):
    # The hub looks at each subscriber once more when its first keep-alive would be due.
    config = StreamConfig(prefix=prefix, keep_alive_interval=0.1)
    with StreamManager(redis_url, config=config) as streams:
        streams.end_stream("room")
        end = streams.info("room").last_event_id
        before = subscribers()

        for _ in range(3):
            response = streams.get_stream("room", last_event_id=end)
            body, status, _ = response.get_wsgi_response(EnvironBuilder("/").get_environ())
            body.close()
            assert status == "204 No Content"

        # The thread that reads the log still holds what it has read last.
        Deadline(5).until(lambda: subscribers() <= before + 1, subscribers, every=0.05)


def subscribers() -> int:
    """How many there are in this process, those of other tests included."""
    gc.collect()
    return sum(isinstance(each, Subscriber) for each in gc.get_objects())


def test_a_stream_of_the_wrong_kind_of_arguments_is_refused_in_the_view(
    streams: StreamManager, app: Flask
):
    cases = [
        {"event_name": "a\nb"},
        {"event_name": "stream-x"},
        {"replay": -1},
        {"replay": "some"},
        {"keep_alive_interval": 0},
        {"keep_alive_interval": "1"},
        {"headers": {"X": "a\r\nSet-Cookie: x=y"}},
        {"headers": {"X Y": "a"}},
        {"headers": {"Content-Length": "5"}},
        {"headers": {"X": 1}},
    ]
    for arguments in cases:
        with (
            app.test_request_context("/"),
            pytest.raises((InvalidEvent, ValueError, TypeError), match=next(iter(arguments))),
        ):
            streams.get_stream("room", **arguments)


def test_two_managers_serve_one_app(
    streams: StreamManager, app: Flask, redis_url: str, prefix: str
):
    other = StreamManager(redis_url, config=StreamConfig(prefix=prefix + "-other"))
    other.init_app(app)
    app.add_url_rule("/other/<i>", "other", lambda i: other.get_stream(i, replay="all"))
    for manager, name in ((streams, "first"), (other, "second")):
        manager.send_event("room", name)
        manager.end_stream("room")

    client = app.test_client()

    assert [e.data for e in events_of(client.get("/room").data)] == ["{}", "first", "{}"]
    assert [e.data for e in events_of(client.get("/other/room").data)] == ["{}", "second", "{}"]
    other.close()
