"""A writer joins what comes together, sends it in time, loses nothing, and ends its stream."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

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

    with pytest.raises(Trouble, match="password") as caught:
        block()

    assert end_of(reader) == {"reason": "failed", "error": "Trouble"}
    assert texts(reader) == [("message", "half a ")]
    assert not hasattr(caught.value, "__notes__")


def test_the_text_of_the_error_goes_with_the_end_when_asked_for(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room")

    def block() -> None:
        with streams.writer("room", error_text=True):
            raise Trouble("no such model \ud800" + "x" * 9999)

    with pytest.raises(Trouble):
        block()

    end = end_of(reader)
    assert end["text"].startswith("no such model \ud800x")
    assert len(end["text"]) == 1000


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_ends_the_stream_as_cancelled(
    shell: Shell, streams: Any, interruption: type[BaseException]
):
    if shell.is_async:
        pytest.skip("these end the event loop itself")
    reader = shell.reader(streams, "room")

    def block() -> None:
        with streams.writer("room", LONG) as writer:
            writer.write("half")
            raise interruption

    with pytest.raises(interruption):
        block()

    assert end_of(reader) == {"reason": "cancelled"}
    assert texts(reader) == [("message", "half")]


@pytest.mark.parametrize("by", ["task", "scope", "timeout"])
def test_a_cancelled_task_ends_the_stream_as_cancelled(shell: Shell, streams: Any, by: str):
    if not shell.is_async:
        pytest.skip("threads can't be cancelled")
    import anyio

    reader = shell.reader(streams, "room")
    written = asyncio.Event()

    async def write() -> None:
        async with streams.wrapped.writer("room", LONG) as writer:
            await writer.write("half")
            written.set()
            await anyio.sleep_forever()

    async def by_task() -> None:
        task = asyncio.create_task(write())
        await written.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    async def by_scope() -> None:
        # Delivers the cancellation again at each await: what isn't shielded never ends.
        async with anyio.create_task_group() as group:
            group.start_soon(write)
            await written.wait()
            group.cancel_scope.cancel()

    async def by_timeout() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(write(), 0.2)

    shell.loop.run({"task": by_task, "scope": by_scope, "timeout": by_timeout}[by]())

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
        Deadline(5).until(lambda: inner._is_failing, "it couldn't be sent")
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
def test_the_block_s_exception_goes_on_although_redis_is_away(shell: Shell, away: Any):
    streams, server = away

    def block() -> None:
        with streams.writer("room", LONG) as writer:
            writer.write("a")
            server.hang()
            raise Trouble

    with pytest.raises(Trouble) as caught:
        block()
    server.go_on()

    [note] = caught.value.__notes__
    assert "'room' could not be ended" in note


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


@pytest.mark.one_server
def test_a_send_that_a_cancellation_cut_off_is_stored_once(shell: Shell, redis_server: RedisServer):
    if not shell.is_async:
        pytest.skip("threads can't be cancelled")
    streams = shell.manager(redis_server.url)
    streams.send_event("warm up", "x")

    async def write() -> None:
        async with streams.wrapped.writer("room", LONG) as writer:
            await writer.write("a")
            redis_server.hang()
            await writer.flush()

    async def cancelled() -> None:
        task = asyncio.create_task(write())
        # The command lies in the server's socket and will be carried out.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.3)
        task.cancel()
        asyncio.get_running_loop().call_later(0.2, redis_server.go_on)
        await asyncio.wait([task])
        assert task.cancelled()

    shell.loop.run(cancelled())

    reader = shell.reader(streams, "room", replay="all")
    assert end_of(reader) == {"reason": "cancelled"}
    assert texts(reader) == [("message", "a")]
    shell.close()


# Threads, tasks and processes


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


def test_the_thread_ends_by_itself_when_nothing_waits(shell: Shell, streams: Any):
    def working() -> bool:
        if shell.loop is not None:
            return any(t.get_name() == "streamy-redis-writer" for t in shell.loop.tasks())
        return any(t.name == "streamy-redis-writer" for t in threading.enumerate())

    with streams.writer("room", 0.5) as writer:
        writer.write("a")
        assert working()
        Deadline(5).until(lambda: not working(), "it has ended")
        writer.write("b")
        assert working()

    Deadline(5).until(lambda: not working(), "it has ended")


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


@pytest.mark.real_server
def test_a_forked_child_neither_writes_nor_ends_what_its_parent_began(shell: Shell, streams: Any):
    if shell.name.partition("-")[0] != "threads":
        pytest.skip("forks a process of threads")
    reader = shell.reader(streams, "room")

    with streams.writer("room", LONG) as writer:
        writer.write("parent")
        child = os.fork()
        if not child:
            code = 1
            try:
                with writer:
                    writer.write("child")
            except RuntimeError as error:
                code = 0 if "forked" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not reader.received
        writer.write("'s")

    assert end_of(reader) == {"reason": "done"}
    assert texts(reader) == [("message", "parent's")]
