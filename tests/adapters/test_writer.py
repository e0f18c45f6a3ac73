"""How a response is written to whatever `send` a server or a middleware gives it.

A write is begun from wherever an event is heard, in the name of a task of the response's, and is
finished there if it has to wait: `send` must not be able to tell.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import uuid
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import anyio
import pytest

from streamy_redis import AsyncStreamManager, StreamConfig
from tests.deadline import Deadline
from tests.event_stream import events_of

Message = MutableMapping[str, Any]
SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
ROOM = "room"
FATAL = "fatal"
DEPTH = contextvars.ContextVar("depth", default=0)


class Client:
    """A request and its server: `receive`, and a `send` that completes at once."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.under_way = 0
        self.most_under_way = 0
        self._has_left = asyncio.Event()
        self._has_asked = False

    async def receive(self) -> Message:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._has_left.wait()
        return {"type": "http.disconnect"}

    def send(self, message: Message) -> Awaitable[None]:
        return self._send(message)

    async def _send(self, message: Message) -> None:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.transmit(message)
        finally:
            self.under_way -= 1
        self.messages.append(message)

    async def transmit(self, message: Message) -> None:
        pass

    def leave(self) -> None:
        self._has_left.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def is_open(self) -> bool:
        return b"event: stream-open\n" in self.body

    @property
    def data(self) -> list[str]:
        return [event.data for event in events_of(self.body) if event.type == "message"]

    def assert_is_written_in_turn(self) -> None:
        """One send after the other, the last one last, and only that one the last."""
        assert self.most_under_way == 1
        is_last = [message.get("more_body") is False for message in self.messages]
        assert is_last == [False] * (len(is_last) - 1) + [True]


class Suspending(Client):
    """Each of its sends takes a turn of the loop."""

    async def transmit(self, message: Message) -> None:
        await asyncio.sleep(0)


class NowAndThen(Client):
    """Each third of its sends takes some turns of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = itertools.cycle([0, 0, 3])

    async def transmit(self, message: Message) -> None:
        for _ in range(next(self._turns)):
            await asyncio.sleep(0)


class InAMiddleware(NowAndThen):
    """Its sends go through what belongs to a task: time limits, context variables."""

    async def transmit(self, message: Message) -> None:
        task = asyncio.current_task()
        token = DEPTH.set(DEPTH.get() + 1)
        async with asyncio.timeout(5):
            with anyio.fail_after(5):
                await super().transmit(message)
        assert DEPTH.get() == 1
        DEPTH.reset(token)
        assert task is not None
        assert asyncio.current_task() is task


class Held(Client):
    """While it is held, a send doesn't complete."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def transmit(self, message: Message) -> None:
        await self.gate.wait()


class LeavingInAWrite(Client):
    """It leaves as soon as an event is written to it, and that write ends as if it was done."""

    async def transmit(self, message: Message) -> None:
        if b"data: x" in message.get("body", b""):
            self.leave()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)


class _Failing(Client):
    """A send that has FATAL in it fails; then its client has left as well."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.failures = 0

    def fail_on(self, message: Message) -> None:
        if FATAL.encode() in message.get("body", b""):
            self.failures += 1
            self.leave()
            raise self.error


class FailingAtOnce(_Failing):
    """A coroutine function that raises before it has waited."""

    async def transmit(self, message: Message) -> None:
        self.fail_on(message)


class FailingLater(_Failing):
    async def transmit(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.fail_on(message)


class FailingAsAFunction(_Failing):
    """A plain function, which raises before there is anything to wait for."""

    def send(self, message: Message) -> Awaitable[None]:
        self.fail_on(message)
        return super().send(message)


class Server:
    """Serves clients a stream, in this event loop."""

    def __init__(self, streams: AsyncStreamManager) -> None:
        self.streams = streams
        self.requests: dict[Client, asyncio.Task[None]] = {}

    async def open(self, *clients: Client, **options: Any) -> None:
        for client in clients:
            response = self.streams.get_stream(ROOM, **options)
            serving = response(SCOPE, client.receive, client.send)
            self.requests[client] = asyncio.create_task(serving)
        await until(lambda: all(client.is_open for client in clients), "all are open")

    async def send(self, *data: str) -> None:
        for each in data:
            await self.streams.send_event(ROOM, each)

    async def assert_all_have(self, data: list[str], *clients: Client) -> None:
        """Their responses are over, without an error, and each was written all of it in turn."""
        for client in clients:
            assert await self.error_of(client) is None
            assert client.data == data
            client.assert_is_written_in_turn()

    async def error_of(self, client: Client) -> BaseException | None:
        """What its response raised; once that is over."""
        request = self.requests[client]
        await until(request.done, "its response is over")
        return request.exception()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = Deadline(5)
    while not condition():
        assert deadline.left, f"not within 5 s: {what}"
        await asyncio.sleep(0.002)


def run(test: Callable[[Server], Coroutine[Any, Any, None]]) -> None:
    """Runs a test in a loop of its own, after which none of our tasks is left there."""

    async def main() -> None:
        troubles: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: troubles.append(what))
        # Those of one process share their memory.
        config = StreamConfig(prefix=f"t-{uuid.uuid4().hex[:12]}")
        streams = AsyncStreamManager("memory://", config=config)
        server = Server(streams)
        try:
            await test(server)
        finally:
            for client in server.requests:
                client.leave()
            await streams.aclose()
        # A task that is done is forgotten a turn later.
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "no task is left")
        assert not troubles

    asyncio.run(main())


KINDS = [Client, Suspending, NowAndThen, InAMiddleware]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_written_once_and_in_order(kind: type[Client]):
    async def test(server: Server) -> None:
        clients = [kind() for _ in range(5)]
        await server.open(*clients)

        data = [str(n) for n in range(100)]
        await server.send(*data)
        await server.streams.end_stream(ROOM)

        await server.assert_all_have(data, *clients)

    run(test)


def test_a_crowd_of_all_kinds_gets_every_event_once_and_in_order():
    async def test(server: Server) -> None:
        clients = [kind() for kind in KINDS * 3]
        await server.open(*clients)

        data = [str(n) for n in range(100)]
        # In bursts, so that several stand in one batch.
        await server.streams.send_events(ROOM, data[:40])
        await server.send(*data[40:60])
        await server.streams.send_events(ROOM, data[60:])
        await server.streams.end_stream(ROOM)

        await server.assert_all_have(data, *clients)

    run(test)


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_that_rests_is_cut_when_the_manager_is_closed(kind: type[Client]):
    async def test(server: Server) -> None:
        clients = [kind() for _ in range(3)]
        await server.open(*clients)
        await server.send("x")
        await until(lambda: all(client.data == ["x"] for client in clients), "all have it")

        await server.streams.aclose()

        for client in clients:
            assert await server.error_of(client) is None
            assert client.data == ["x"]
            assert all(message.get("more_body", True) for message in client.messages)

    run(test)


@pytest.mark.parametrize("is_held_by", ["an event", "a keep-alive"])
def test_nothing_is_written_while_a_write_is_under_way(is_held_by: str):
    async def test(server: Server) -> None:
        held, quick = Held(), Client()
        await server.open(held, keep_alive_interval=0.1)
        await server.open(quick)
        await server.send("first")
        await until(lambda: held.data == ["first"], "it has the first")

        held.gate.clear()
        if is_held_by == "an event":
            await server.send("held")
        await until(lambda: held.under_way, "a write is under way")
        await server.send("a", "b", "c")
        await until(lambda: quick.data[-3:] == ["a", "b", "c"], "others have all")
        held.gate.set()
        await server.streams.end_stream(ROOM)

        for client in (held, quick):
            assert await server.error_of(client) is None
            assert client.data == quick.data
            client.assert_is_written_in_turn()

    run(test)


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("transport is closed")], ids=repr)
@pytest.mark.parametrize("failing", [FailingAtOnce, FailingLater, FailingAsAFunction])
def test_one_client_s_failing_send_harms_no_other(failing: type[_Failing], error: Exception):
    async def test(server: Server) -> None:
        before, fails, after = Client(), failing(error), Client()
        suspends = Suspending()
        await server.open(before, fails, suspends, after)

        await server.send("1", FATAL, "2", "3")
        raised = await server.error_of(fails)
        await server.send("4")
        await server.streams.end_stream(ROOM)

        # Some servers say so that the client has left, which is no error.
        assert raised is (None if isinstance(error, OSError) else error)
        assert fails.failures == 1
        await server.assert_all_have(["1", FATAL, "2", "3", "4"], before, suspends, after)

    run(test)


@pytest.mark.parametrize(
    "error", [TimeoutError("a middleware's"), RuntimeError("closed")], ids=repr
)
@pytest.mark.parametrize("failing", [FailingAtOnce, FailingLater, FailingAsAFunction])
def test_nothing_is_written_after_a_send_that_failed(failing: type[_Failing], error: Exception):
    async def test(server: Server) -> None:
        fails, stays = failing(error), Client()
        await server.open(fails, stays)

        await server.streams.send_events(ROOM, ["1", FATAL])
        await server.streams.send_events(ROOM, ["2", "3"])
        await server.streams.end_stream(ROOM)

        raised = await server.error_of(fails)
        assert raised is (None if isinstance(error, OSError) else error)
        assert await server.error_of(stays) is None
        assert not {"2", "3"} & set(fails.data)
        assert all(message.get("more_body") is not False for message in fails.messages)

    run(test)


def test_a_client_that_leaves_as_a_write_begins_leaves_no_task():
    async def test(server: Server) -> None:
        leaves, stays = LeavingInAWrite(), Client()
        await server.open(leaves, stays)

        await server.send("x")

        assert await server.error_of(leaves) is None
        assert leaves.under_way == 0
        await until(lambda: stays.data == ["x"], "others go on")

    run(test)


def test_a_client_that_leaves_during_a_write_leaves_no_task():
    async def test(server: Server) -> None:
        held, stays = Held(), Client()
        await server.open(held, stays)
        held.gate.clear()
        await server.send("x")
        await until(lambda: held.under_way, "a write is under way")

        held.leave()

        assert await server.error_of(held) is None
        assert held.under_way == 0
        await server.send("y")
        await until(lambda: stays.data == ["x", "y"], "others go on")

    run(test)
