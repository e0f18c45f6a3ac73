"""A writer joins what comes together, sends it in time, loses nothing, and ends its stream."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis.asyncio
from redis.credentials import CredentialProvider

from streamy_redis import InvalidEvent, RedisUnavailable, StreamEnded
from tests.deadline import Deadline
from tests.proxy import LossyProxy
from tests.servers import RedisServer

from .conftest import Shell

# Longer than any test takes: what is sent was not sent because it was due.
LONG = 60.0


def texts(reader: Any) -> list[tuple[str, str]]:
    return [(e.name, e.data) for e in reader.received if e.kind == "event"]


def end_of(reader: Any) -> Any:
    last = reader.wait_ended()[-1]
    assert last.kind == "end"
    return json.loads(last.data)


# Joining


def test_what_comes_within_the_interval_is_one_event(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        for token in ("Once", " upon", "", " a", "\n", "time"):
            writer.write(token)

    assert end_of(reader) == {"reason": "done"}
    assert texts(reader) == [("message", "Once upon a\ntime")]


def test_nothing_written_is_an_end_and_nothing_else(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room") as writer:
        writer.write("")

    assert end_of(reader) == {"reason": "done"}
    assert len(reader.received) == 1


def test_it_is_sent_in_time_although_no_more_comes(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", 0.05) as writer:
        writer.write("a")
        writer.write("b")
        reader.wait_for(1, 5)
        # And again, after a pause.
        writer.write("c")
        reader.wait_for(2, 5)
        assert texts(reader) == [("message", "ab"), ("message", "c")]
    end_of(reader)


def test_it_isn_t_sent_before_the_interval_is_over(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", 3) as writer:
        writer.write("a")
        Deadline(0.3).stays(lambda: not reader.received)
        writer.write("b")

    end_of(reader)
    assert texts(reader) == [("message", "ab")]


def test_a_steady_flow_is_sent_in_time_and_in_order(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    tokens = [f"{n} " for n in range(400)]
    pause = threading.Event()

    with streams.writer("room", 0.02) as writer:
        start = time.monotonic()
        for token in tokens:
            writer.write(token)
            pause.wait(0.001)
        took = time.monotonic() - start

    end_of(reader)
    assert "".join(text for _, text in texts(reader)) == "".join(tokens)
    assert 2 <= len(texts(reader)) <= took / 0.02 + 2


def test_a_line_end_that_came_in_two_pieces_is_one(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("a\r")
        writer.flush()
        writer.write("\nb\r")
        writer.write("\nc")

    end_of(reader)
    assert texts(reader) == [("message", "a\n"), ("message", "b\nc")]


def test_names_are_kept_apart_and_in_order(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("let me", "thought")
        writer.write(" see", "thought")
        writer.write("Yes")
        writer.write(".")
        writer.write("!", "thought")

    end_of(reader)
    assert texts(reader) == [("thought", "let me see"), ("message", "Yes."), ("thought", "!")]


def test_flush_sends_now(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("text")
        writer.flush()
        streams.send_event("room", {"tokens": 1}, "usage")
        writer.flush()

    end_of(reader)
    assert texts(reader) == [("message", "text"), ("usage", '{"tokens":1}')]


def test_what_would_exceed_max_event_size_is_sent_before(shell: Shell):
    streams = shell.manager(max_event_size=10)
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("1234567")
        writer.write("ßß")  # 11 bytes together
        assert reader.wait_for(1)[0].data == "1234567"
        writer.write("567890")
        with pytest.raises(InvalidEvent, match="at most 10 bytes"):
            writer.write("12345678901")

    end_of(reader)
    assert texts(reader) == [("message", "1234567"), ("message", "ßß567890")]


@pytest.mark.parametrize("value", [b"bytes", {"delta": "x"}, 7, None])
def test_only_text_can_be_joined(shell: Shell, streams: Any, value: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("a")
        with pytest.raises(TypeError, match="send_event"):
            writer.write(value)
        writer.write("b")

    assert end_of(reader) == {"reason": "done"}
    assert texts(reader) == [("message", "ab")]


@pytest.mark.parametrize("arguments", [("lone \ud800",), ("x", "stream-end"), ("x", "a\nb")])
def test_what_can_t_be_sent_is_refused_at_once(shell: Shell, streams: Any, arguments: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        with pytest.raises(InvalidEvent):
            writer.write(*arguments)
        writer.write("good")

    end_of(reader)
    assert texts(reader) == [("message", "good")]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("",), InvalidEvent), (("room", 0), ValueError), (("room", "1"), TypeError)],
)
@pytest.mark.refusal
def test_a_wrong_argument_is_refused(streams: Any, arguments: Any, error: type[Exception]):
    with pytest.raises(error):
        streams.writer(*arguments)


# The end


class Trouble(Exception):
    pass


def test_a_block_that_raises_ends_the_stream_and_the_exception_goes_on(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    def block() -> None:
        with streams.writer("room", LONG) as writer:
            writer.write("half a ")
            raise Trouble("the password is 1234")

    with pytest.raises(Trouble, match="password"):
        block()

    assert end_of(reader) == {"reason": "failed", "error": "Trouble"}
    assert texts(reader) == [("message", "half a ")]


def test_a_block_that_fails_can_end_with_data_of_its_own(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    def block() -> None:
        with streams.writer("room") as writer:
            try:
                raise Trouble("no such model")
            except Trouble as error:
                writer.close({"reason": "failed", "text": str(error)})
                raise

    with pytest.raises(Trouble):
        block()

    assert end_of(reader) == {"reason": "failed", "text": "no such model"}


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_ends_the_stream_as_cancelled(
    shell: Shell, streams: Any, interruption: type[BaseException]
):
    reader = shell.reader(streams, "room")

    def block() -> None:
        with streams.writer("room", LONG) as writer:
            writer.write("half")
            raise interruption

    with pytest.raises(interruption):
        block()

    assert end_of(reader) == {"reason": "cancelled"}
    assert texts(reader) == [("message", "half")]


def test_close_ends_with_data_of_its_own(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("cut of")
        writer.close({"reason": "length"})
        writer.close()
        with pytest.raises(StreamEnded):
            writer.write("f")

    assert end_of(reader) == {"reason": "length"}
    assert texts(reader) == [("message", "cut of")]


# Ended by somebody else


def test_who_ends_the_stream_stops_the_writer(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    written = []

    def block() -> None:
        with streams.writer("room", 0.01) as writer:
            writer.write("before")
            reader.wait_for(1)
            shell.manager().end_stream("room", {"reason": "enough"})
            deadline = Deadline(5)
            while deadline.left:
                writer.write("after")
                written.append("after")

    with pytest.raises(StreamEnded):
        block()

    assert end_of(reader) == {"reason": "enough"}
    assert texts(reader) == [("message", "before")]


def test_text_that_came_too_late_for_the_end_is_told_at_the_exit(shell: Shell, streams: Any):
    def block() -> None:
        with streams.writer("room", LONG) as writer:
            writer.write("late")
            streams.end_stream("room")

    with pytest.raises(StreamEnded):
        block()


def test_text_that_the_flusher_found_too_late_is_told_at_the_exit(shell: Shell, streams: Any):
    streams.end_stream("room")

    def block() -> None:
        with streams.writer("room", 0.01) as writer:
            writer.write("late")
            wait_until_nothing_waits(writer)

    with pytest.raises(StreamEnded):
        block()


def wait_until_nothing_waits(writer: Any) -> None:
    inner = getattr(writer, "_writer", writer)
    Deadline(5).until(lambda: inner._coalescer.due_at is None, "the flusher has tried")


def test_a_new_life_of_the_stream_gets_nothing_of_the_old_writer(shell: Shell, streams: Any):
    def block() -> None:
        with streams.writer("room", 0.01) as writer:
            streams.end_stream("room")
            writer.write("old")
            wait_until_nothing_waits(writer)
            streams.delete_stream("room")
            streams.send_event("room", "new")
            writer.write("old, too")

    with pytest.raises(StreamEnded):
        block()

    assert not streams.info("room").ended
    assert streams.info("room").length == 1


def test_an_end_by_somebody_else_with_nothing_left_to_say_is_no_error(streams: Any):
    with streams.writer("room", LONG) as writer:
        writer.write("all")
        writer.flush()
        streams.end_stream("room")

    assert streams.info("room").length == 2


# Redis away


@pytest.fixture
def away(shell: Shell, redis_server: RedisServer) -> Iterator[tuple[Any, RedisServer]]:
    streams = shell.manager(redis_server.url, send_timeout=0.4, max_retries=1)
    streams.send_event("warm up", "x")
    yield streams, redis_server
    shell.close()


@pytest.mark.one_server
def test_what_can_t_be_sent_is_told_kept_and_sent_first(shell: Shell, away: Any):
    streams, server = away
    with streams.writer("room", LONG) as writer:
        writer.write("a")
        server.hang()
        with pytest.raises(RedisUnavailable):
            writer.flush()
        for _ in range(2):
            # Whatever raised wasn't taken.
            with pytest.raises(RedisUnavailable):
                writer.write("b")
        server.go_on()
        writer.write("b")
        writer.write("c")

    reader = shell.reader(streams, "room", replay="all")
    assert end_of(reader) == {"reason": "done"}
    # What hung may have reached Redis more than once, and is stored once.
    assert texts(reader) == [("message", "a"), ("message", "bc")]


@pytest.mark.one_server
def test_the_flusher_tries_again_by_itself(shell: Shell, away: Any):
    streams, server = away
    with streams.writer("room", 0.02) as writer:
        # Not hung: what lies in its socket would arrive without another try.
        server.kill()
        writer.write("a")
        inner = getattr(writer, "_writer", writer)
        Deadline(5).until(lambda: inner._coalescer._is_failing, "it couldn't be sent")
        server.start()
        wait_until_nothing_waits(writer)
        reader = shell.reader(streams, "room", replay="all")
        assert reader.wait_for(1)[0].data == "a"
        writer.write("b")

    end_of(reader)
    assert texts(reader) == [("message", "a"), ("message", "b")]


@pytest.mark.one_server
def test_a_block_left_while_redis_is_away_says_so_and_can_be_closed_later(shell: Shell, away: Any):
    streams, server = away
    writer = streams.writer("room", LONG)

    def block() -> None:
        with writer:
            writer.write("a")
            server.hang()

    with pytest.raises(RedisUnavailable):
        block()
    server.go_on()

    writer.close()

    reader = shell.reader(streams, "room", replay="all")
    assert end_of(reader) == {"reason": "done"}
    assert texts(reader) == [("message", "a")]


@pytest.mark.one_server
def test_the_block_s_exception_goes_on_although_redis_is_away(
    shell: Shell, away: Any, caplog: pytest.LogCaptureFixture
):
    streams, server = away

    def block() -> None:
        with streams.writer("room", LONG) as writer:
            writer.write("a")
            server.hang()
            raise Trouble

    with pytest.raises(Trouble):
        block()
    server.go_on()

    [line] = [r.getMessage() for r in caplog.records if r.name == "streamy_redis.writer"]
    assert line.startswith("stream 'room' could not be ended: ")


@pytest.mark.one_server
def test_a_block_that_could_not_end_tries_no_more_by_itself(shell: Shell, away: Any):
    streams, server = away

    def block() -> None:
        with streams.writer("room", 0.02) as writer:
            server.kill()
            writer.write("a")

    with pytest.raises(RedisUnavailable):
        block()
    server.start()

    # Twice what it would take.
    Deadline(1).stays(lambda: not streams.info("room").exists)


@pytest.mark.one_server
def test_what_comes_after_an_outage_isn_t_put_off_with_what_came_before(
    shell: Shell, away: Any, monkeypatch: pytest.MonkeyPatch
):
    streams, server = away
    for module in ("sync", "asyncio"):
        monkeypatch.setattr(f"streamy_redis.{module}.coalescing.WRITER_RETRY_INTERVAL", LONG)
    with streams.writer("room", 0.02) as writer:
        server.kill()
        writer.write("a")
        inner = getattr(writer, "_writer", writer)
        Deadline(5).until(lambda: inner._coalescer._is_failing, "it couldn't be sent")
        server.start()
        writer.flush()
        writer.write("b")

        reader = shell.reader(streams, "room", replay="all")
        reader.wait_for(2)

    end_of(reader)
    assert texts(reader) == [("message", "a"), ("message", "b")]


@pytest.mark.one_server
@pytest.mark.parametrize("tries", [0, 3])
def test_a_lost_reply_stores_it_once(shell: Shell, tries: int):
    with LossyProxy(urlsplit(shell.url).port or 6379) as proxy:
        streams = shell.manager(proxy.url, max_retries=tries)
        streams.send_event("warm up", "x")
        with streams.writer("room", LONG) as writer:
            writer.write("a")
            proxy.lose_reply_to(b"EVALSHA")
            if not tries:
                with pytest.raises(RedisUnavailable):
                    writer.flush()
            writer.flush()
            assert proxy.lost == 1
            writer.write("b")
        reader = shell.reader(shell.manager(), "room", replay="all")
        assert end_of(reader) == {"reason": "done"}
        assert texts(reader) == [("message", "a"), ("message", "b")]
        shell.close()


# Threads and managers


def test_many_writers_at_once_share_one_thread_or_leave_no_task(shell: Shell, streams: Any):
    rooms = [f"room {n}" for n in range(12)]

    def write(room: str) -> None:
        with streams.writer(room, 0.01) as writer:
            for n in range(20):
                writer.write(f"{n} ")
                most.append(sum(t.name == "streamy-redis-writer" for t in threading.enumerate()))

    most: list[int] = []
    threads = [threading.Thread(target=write, args=(room,)) for room in rooms]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    expected = "".join(f"{n} " for n in range(20))
    for room in rooms:
        reader = shell.reader(streams, room, replay="all")
        assert end_of(reader) == {"reason": "done"}
        assert "".join(text for _, text in texts(reader)) == expected
    assert max(most) == (0 if shell.is_async else 1)


class NoTokenAtFirst(CredentialProvider):
    """Passwords from elsewhere, which is away when the first is asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        if self.asked == 1:
            raise ValueError("no token")
        return "default", "any"


@pytest.mark.one_server
def test_the_flusher_outlives_an_error_that_nobody_foresaw(shell: Shell):
    client = redis.asyncio.Redis if shell.is_async else redis.Redis
    provider = NoTokenAtFirst()
    streams = shell.manager(client.from_url(shell.url, credential_provider=provider))
    with streams.writer("room", 0.02) as writer:
        writer.write("a")
        Deadline(5).until(lambda: provider.asked, "it was to be sent")
        writer.write("b")
        wait_until_nothing_waits(writer)

    reader = shell.reader(streams, "room", replay="all")
    assert end_of(reader) == {"reason": "done"}
    assert "".join(text for _, text in texts(reader)) == "ab"


def test_a_writer_outlives_the_close_of_its_manager(shell: Shell, streams: Any):
    with streams.writer("room", 0.02) as writer:
        writer.write("a")
        streams.close()
        writer.write("b")
        wait_until_nothing_waits(writer)
        writer.write("c")

    reader = shell.reader(streams, "room", replay="all")
    assert end_of(reader) == {"reason": "done"}
    assert "".join(text for _, text in texts(reader)) == "abc"


def test_threads_that_share_a_writer_lose_nothing(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")
    with streams.writer("room", 0.005) as writer:

        def write(letter: str) -> None:
            for n in range(50):
                writer.write(f"{letter}{n} ")

        threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    end_of(reader)
    whole = "".join(text for _, text in texts(reader)).split()
    for letter in "abcd":
        mine = [word for word in whole if word.startswith(letter)]
        assert mine == [f"{letter}{n}" for n in range(50)]
