"""Writers: how a subscriber's frames get into an ASGI response.

Where Python has eager tasks (3.12), a write is one, begun and mostly done before the next client
is looked at; nothing is left of it at rest. Before that, each response has a task that takes.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

import anyio

from ..core.subscriber import Subscriber
from .listener import Listener

__all__ = ["Receive", "ResponseWriter", "Send", "new_writer"]

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
        "_listener",
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
        # Middlewares find the request's context variables.
        self._context = contextvars.copy_context()
        # A write that could not be done at once.
        self._task: asyncio.Task[None] | None = None
        self.error: BaseException | None = None

    def wake(self) -> None:
        if self._subscriber.is_aborted:
            self._abort()
            self._on_end()
        elif self._task is None:
            self._go_on()

    def _go_on(self) -> None:
        while True:
            frames, closed = self._listener.take(self._subscriber)
            if frames and not self.write(b"".join(frames)):
                return
            if closed is not None:
                if self._start(_LAST):
                    self._on_end()
                return
            if not frames:
                return

    def write(self, data: bytes) -> bool:
        return self._start(_body(data))

    def _start(self, message: MutableMapping[str, Any]) -> bool:
        """Whether it is done already."""
        task = asyncio.Task(
            _coroutine(self._send(message)),
            loop=asyncio.get_running_loop(),
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
        if not task.cancelled():
            self.wake()

    def _see(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        # Some servers say so that the client has left; receive() says it too.
        if error is not None and not isinstance(error, OSError) and self.error is None:
            self.error = error
            self._on_end()

    async def aclose(self) -> None:
        self._on_end = _nothing
        if self._task is not None:
            await _stop(self._task)


class _TaskWriter:
    """One task takes and writes."""

    __slots__ = (
        "_abort",
        "_listener",
        "_on_end",
        "_send",
        "_subscriber",
        "_task",
        "_waiter",
        "error",
    )

    writes_at_once = False

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
        self._waiter: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run())
        self.error: BaseException | None = None

    def wake(self) -> None:
        if self._subscriber.is_aborted:
            self._abort()
            self._on_end()
        elif self._waiter is not None:
            self._waiter.set_result(None)
            self._waiter = None

    def write(self, data: bytes) -> bool:
        raise AssertionError("a subscriber whose frames are taken by a task never rests")

    async def _run(self) -> None:
        try:
            await self._take()
            await self._send(_LAST)
        except OSError:
            # The client has left.
            pass
        except Exception as exc:
            self.error = exc
        self._on_end()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            frames, closed = self._listener.take(self._subscriber)
            if frames:
                await self._send(_body(b"".join(frames)))
            if closed is not None:
                return
            if not frames:
                self._waiter = loop.create_future()
                await self._waiter

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
new_writer = _EagerWriter if sys.version_info >= (3, 12) else _TaskWriter
