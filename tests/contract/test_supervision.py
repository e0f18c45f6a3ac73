"""What would end a thread or task of ours is logged once, and whoever reads goes on."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from tests.deadline import Deadline

from .conftest import GEVENT

pytestmark = pytest.mark.one_server


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    return lambda: caplog.text


@pytest.mark.skipif(GEVENT, reason="greenlets are no threads to throw into")
def test_every_thread_that_system_exit_is_thrown_into_goes_on(
    redis_url: str, prefix: str, logged: Callable[[], str]
):
    names = ["listener", "history", "ticker"]
    with (
        StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams,
        streams.subscribe("room", timeout=5) as events,
    ):
        for thread in list(streams._process.listener._threads):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
            )
        # Wakes each of them.
        streams.send_event("room", "a")
        with streams.subscribe("other", timeout=5):
            pass
        Deadline(5).until(lambda: logged().count("is started again") == 3, logged)
        streams.send_event("room", "b")

        assert [next(events).data, next(events).data] == ["a", "b"]
    assert all(logged().count(f"the {name} thread failed") == 1 for name in names)


def exit_once(read: Callable[..., Any], error: type[BaseException]) -> Callable[..., Any]:
    """A reader of pages into which something is thrown, the first time."""
    thrown: list[bool] = []

    def read_or_exit(*arguments: Any) -> Any:
        if not thrown:
            thrown.append(True)
            raise error
        return read(*arguments)

    return read_or_exit


def test_pages_that_were_asked_for_are_asked_for_again(
    redis_url: str, prefix: str, logged: Callable[[], str]
):
    with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
        streams.send_event("room", "a")
        history = streams._process.listener._history
        history.read = exit_once(history.read, SystemExit)

        with streams.subscribe("room", replay="all", timeout=5) as events:
            assert next(events).data == "a"
    assert logged().count("is started again") == 1


@pytest.mark.skipif(GEVENT, reason="asyncio")
@pytest.mark.parametrize("error", [GeneratorExit, asyncio.CancelledError])
def test_a_task_that_something_else_than_an_error_ends_goes_on(
    redis_url: str, prefix: str, logged: Callable[[], str], error: type[BaseException]
):
    async def run() -> None:
        async with AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
            await streams.send_event("room", "a")
            history = streams._loop.listener._history
            history.read = exit_once(history.read, error)

            async with streams.subscribe("room", replay="all", timeout=5) as events:
                assert (await anext(events)).data == "a"

    asyncio.run(run())
    assert logged().count("is started again") == 1


@pytest.mark.skipif(GEVENT, reason="asyncio")
def test_what_is_aimed_at_the_process_leaves_the_loop_and_readers_go_on_where_it_does(
    redis_url: str, prefix: str
):
    loop = asyncio.new_event_loop()
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))

    async def receive() -> str:
        await streams.send_event("room", "a")
        history = streams._loop.listener._history
        history.read = exit_once(history.read, SystemExit)
        async with streams.subscribe("room", replay="all", timeout=5) as events:
            return (await anext(events)).data

    receiving = loop.create_task(receive())
    with pytest.raises(SystemExit):
        loop.run_until_complete(receiving)

    assert loop.run_until_complete(receiving) == "a"
    loop.run_until_complete(streams.aclose())
    loop.close()
