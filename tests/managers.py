"""One face for StreamManager and AsyncStreamManager: one list of behaviours runs on both."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from streamy_redis import (
    AsyncStreamManager,
    ReceivedEvent,
    StreamConfig,
    StreamManager,
    StreamStats,
)

from .deadline import Deadline

__all__ = ["AsyncioManager", "LoopThread", "Reader", "ThreadsManager"]

T = TypeVar("T")

# Longer than every documented wait: whatever exceeds it hangs.
PATIENCE = 30.0


class LoopThread:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = PATIENCE) -> T:
        """The result of a coroutine, from any other thread."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():  # the coroutine itself raised TimeoutError
                raise
            future.cancel()
            raise AssertionError(f"the coroutine hangs for {timeout} s") from None

    def call(self, function: Callable[[], T]) -> T:
        async def called() -> T:
            return function()

        return self.run(called())

    def tasks(self) -> list[asyncio.Task[Any]]:
        """The unfinished tasks, without the one that asks."""

        async def others() -> list[asyncio.Task[Any]]:
            me = asyncio.current_task()
            return [task for task in asyncio.all_tasks() if task is not me]

        return self.run(others())

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.loop.close()


class ThreadsManager:
    """StreamManager as it is."""

    def __init__(self, redis: Any = None, *, config: StreamConfig | None = None) -> None:
        self.wrapped = StreamManager(redis, config=config)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapped, name)


class AsyncioManager:
    """AsyncStreamManager, called from outside of its loop."""

    def __init__(
        self, redis: Any = None, *, config: StreamConfig | None = None, loop: LoopThread
    ) -> None:
        self.wrapped = AsyncStreamManager(redis, config=config)
        self._loop = loop

    def _run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        async def work() -> Any:
            return await getattr(self.wrapped, name)(*args, **kwargs)

        return self._loop.run(work())

    def send_event(self, *args: Any, **kwargs: Any) -> str:
        return self._run("send_event", *args, **kwargs)

    def send_events(self, *args: Any, **kwargs: Any) -> list[str]:
        return self._run("send_events", *args, **kwargs)

    def end_stream(self, *args: Any, **kwargs: Any) -> bool:
        return self._run("end_stream", *args, **kwargs)

    def delete_stream(self, *args: Any, **kwargs: Any) -> bool:
        return self._run("delete_stream", *args, **kwargs)

    def info(self, *args: Any, **kwargs: Any) -> Any:
        return self._run("info", *args, **kwargs)

    def writer(self, *args: Any, **kwargs: Any) -> _BlockingWriter:
        # Plain in both, as subscribe is.
        writer = self._loop.call(lambda: self.wrapped.writer(*args, **kwargs))
        return _BlockingWriter(writer, self._loop)

    def stats(self) -> StreamStats:
        return self.wrapped.stats()

    def close(self) -> None:
        self._run("aclose")

    def subscribe(self, *args: Any, **kwargs: Any) -> _BlockingSubscription:
        # Plain in both, so that a refusal comes from this line.
        subscription = self._loop.call(lambda: self.wrapped.subscribe(*args, **kwargs))
        return _BlockingSubscription(subscription, self._loop)


class _BlockingWriter:
    def __init__(self, writer: Any, loop: LoopThread) -> None:
        self._writer = writer
        self._loop = loop

    def __enter__(self) -> _BlockingWriter:
        self._loop.run(self._writer.__aenter__())
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._loop.run(self._writer.__aexit__(*exc_info))

    def write(self, *args: Any) -> None:
        self._loop.run(self._writer.write(*args))

    def flush(self) -> None:
        self._loop.run(self._writer.flush())

    def close(self, *args: Any) -> None:
        self._loop.run(self._writer.aclose(*args))


class _BlockingSubscription:
    def __init__(self, subscription: Any, loop: LoopThread) -> None:
        self._subscription = subscription
        self._iterator: Any = None
        self._loop = loop

    def __enter__(self) -> _BlockingSubscription:
        async def enter() -> None:
            await self._subscription.__aenter__()

        self._loop.run(enter())
        return self

    def __exit__(self, *exc_info: Any) -> None:
        async def leave() -> None:
            await self._subscription.__aexit__(None, None, None)

        self._loop.run(leave())

    def __iter__(self) -> Iterator[ReceivedEvent]:
        async def step() -> tuple[bool, Any]:
            # StopAsyncIteration can't leave a coroutine.
            try:
                return True, await anext(self._iterator)
            except StopAsyncIteration:
                return False, None

        self._iterator = aiter(self._subscription)
        while True:
            going, event = self._loop.run(step(), timeout=120)
            if not going:
                return
            yield event


class Reader:
    """A subscription, entered at once and read on a thread.

    Everything sent after the constructor returned belongs to it.
    """

    def __init__(self, subscription: Any) -> None:
        self.received: list[ReceivedEvent] = []
        self.ended = False
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._gate = threading.Event()
        self._gate.set()
        self._leave = threading.Event()
        self._context = subscription
        self._subscription = subscription.__enter__()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for event in self._subscription:
                self._gate.wait()
                with self._changed:
                    self.received.append(event)
                    self._changed.notify_all()
                if self._leave.is_set():
                    return
        except BaseException as error:
            self.error = error
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def pause(self) -> None:
        """Take at most one more event until `go_on()`: a slow subscriber."""
        self._gate.clear()

    def go_on(self) -> None:
        self._gate.set()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[ReceivedEvent]:
        """The received events, at least that many."""
        with self._changed:
            done = self._changed.wait_for(
                lambda: len(self.received) >= count or self.ended, timeout
            )
            assert done, f"{len(self.received)} of {count} within {timeout} s: {self.received[-3:]}"
            assert self.error is None, self.error
            assert len(self.received) >= count, f"ended after {self.received}"
            return list(self.received)

    def wait_stopped(self, timeout: float = 10.0) -> BaseException | None:
        """What the iteration raised when it was stopped."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended, timeout), self.received[-3:]
        return self.error

    def wait_ended(self, timeout: float = 10.0) -> list[ReceivedEvent]:
        """All it received, once the iteration has stopped by itself."""
        with self._changed:
            done = self._changed.wait_for(lambda: self.ended, timeout)
        assert done, f"still iterating after {timeout} s: {self.received[-3:]}"
        assert self.error is None, self.error
        return list(self.received)

    def gets_no_more(self, seconds: float = 0.15) -> bool:
        count = len(self.received)
        Deadline(seconds).stays(
            lambda: len(self.received) == count, lambda: f"got {self.received[count:]}"
        )
        return True

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.received]

    @property
    def ids(self) -> list[str | None]:
        return [event.id for event in self.received]

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.received]

    def leave(self) -> None:
        """Leave the `with` block; the thread must have ended or will with the manager."""
        self._gate.set()
        with contextlib.suppress(RuntimeError):
            self._context.__exit__(None, None, None)

    def join(self) -> None:
        self._gate.set()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the iteration doesn't end with the manager"
