"""Writers: how a subscriber's frames get into an ASGI response.

Where Python has eager tasks (3.12), a write is one, begun and mostly done before the next client
is looked at; nothing is left of it at rest. Before that, each response has a task that waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from ..core.subscriber import Subscriber

if TYPE_CHECKING:
    from .listener import Listener

__all__ = ["Receive", "ResponseWriter", "Send", "TaskWriter", "new_writer"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LAST = {"type": "http.response.body", "body": b"", "more_body": False}


def _body(data: bytes) -> MutableMapping[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


class ResponseWriter(Protocol):
    """Writes a subscriber's frames to its response, from the first to the end.

    Attributes:
        error: what send() raised, unless that only says that the client has left.
    """

    writes_at_once: bool
    error: BaseException | None

    def wake(self) -> None: ...
    def write(self, data: bytes) -> bool: ...
    async def aclose(self) -> None:
        """Nothing more is written."""


class _EagerWriter:
    """Each write is a task of its own, which begins at once."""

    __slots__ = (
        "_abort",
        "_context",
        "_is_finished",
        "_listener",
        "_loop",
        "_on_end",
        "_send",
        "_subscriber",
        "_task",
        "error",
    )

    writes_at_once = True

    def __init__(
        self,
        subscriber: Subscriber,
        listener: Listener,
        send: Send,
        abort: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._subscriber = subscriber
        self._listener = listener
        self._send = send
        self._abort = abort
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        # Middlewares find the request's context variables.
        self._context = contextvars.copy_context()
        # A write that could not be done at once.
        self._task: asyncio.Task[None] | None = None
        self._is_finished = False
        self.error: BaseException | None = None

    def wake(self) -> None:
        if self._subscriber.is_aborted:
            self._abort()
            self._on_end()
        elif self._task is None and not self._is_finished:
            self._go_on()

    def _go_on(self) -> None:
        while True:
            frames, closed = self._listener.take(self._subscriber)
            if frames and not self.write(b"".join(frames)):
                return
            if closed is not None:
                self._is_finished = True
                if self._start(_LAST):
                    self._on_end()
                return
            if not frames:
                return

    def write(self, data: bytes) -> bool:
        return self._start(_body(data))

    def _start(self, message: MutableMapping[str, Any]) -> bool:
        """Whether it is done already."""
        assert self._task is None
        try:
            sending = self._send(message)
        except Exception as exc:
            # Not one of the client's: a middleware that is no coroutine function.
            self._fail(exc)
            return True
        task = asyncio.Task(
            sending if isinstance(sending, CoroutineType) else _coroutine(sending),
            loop=self._loop,
            context=self._context,
            eager_start=True,  # type: ignore[call-arg, unused-ignore]
        )
        if task.done():
            self._see(task)
            return True
        self._task = task
        task.add_done_callback(self._written)
        return False

    def _written(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._see(task)
        if self._is_finished:
            self._on_end()
        elif not task.cancelled():
            self.wake()

    def _see(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # Some servers say so that the client has left; receive() says it too.
        if error is not None and not isinstance(error, OSError):
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._is_finished = True
        self.error = self.error or error
        self._on_end()

    async def aclose(self) -> None:
        self._on_end = _nothing
        if self._task is not None:
            await _stop(self._task)


class TaskWriter:
    """One task writes; it waits at rest, and is looked at a turn of the loop after each write."""

    __slots__ = (
        "_abort",
        "_has_more",
        "_listener",
        "_loop",
        "_on_end",
        "_send",
        "_subscriber",
        "_task",
        "_unsent",
        "_waiter",
        "error",
    )

    writes_at_once = True

    def __init__(
        self,
        subscriber: Subscriber,
        listener: Listener,
        send: Send,
        abort: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._subscriber = subscriber
        self._listener = listener
        self._send = send
        self._abort = abort
        self._on_end = on_end
        # What it was given while the subscriber rested.
        self._unsent = b""
        # There is something to take.
        self._has_more = True
        # Where the task waits; None while it writes.
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        self.error: BaseException | None = None

    @property
    def is_late(self) -> bool:
        """Whether a write isn't done although its task had a turn."""
        return self._waiter is None and not self._task.done()

    def wake(self) -> None:
        if self._subscriber.is_aborted:
            self._abort()
            self._on_end()
        self._has_more = True
        self._go_on()

    def write(self, data: bytes) -> bool:
        self._unsent += data
        return self._go_on()

    def _go_on(self) -> bool:
        waiter, self._waiter = self._waiter, None
        # Cancelled with all other tasks when the loop is closed.
        if waiter is None or waiter.done():
            return False
        waiter.set_result(None)
        return True

    async def _run(self) -> None:
        try:
            # One coroutine: at rest each costs memory.
            while True:
                if self._unsent:
                    data, self._unsent = self._unsent, b""
                    await self._send(_body(data))
                    # Late, and the hub knows it: taking says that it is written.
                    self._has_more = self._has_more or not self._subscriber.is_resting
                elif self._has_more:
                    self._has_more = False
                    frames, closed = self._listener.take(self._subscriber)
                    if frames:
                        await self._send(_body(b"".join(frames)))
                        self._has_more = True
                    if closed is not None:
                        break
                else:
                    self._waiter = self._loop.create_future()
                    await self._waiter
            await self._send(_LAST)
        except OSError:
            # The client has left.
            pass
        except Exception as exc:
            self.error = exc
        self._on_end()

    async def aclose(self) -> None:
        self._on_end = _nothing
        self._waiter = None
        await _stop(self._task)


async def _coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait([task])


def _nothing() -> None:
    pass


new_writer: Callable[
    [Subscriber, Listener, Send, Callable[[], None], Callable[[], None]], ResponseWriter
]
new_writer = _EagerWriter if sys.version_info >= (3, 12) else TaskWriter
