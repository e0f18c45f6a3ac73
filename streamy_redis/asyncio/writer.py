"""The writer: how a subscriber's frames get into an ASGI response.

A write begins at once, as a step of a task that rests otherwise, and is mostly done before the
next client is looked at: that is all that an event costs. Only what has to wait is left to the
task itself.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio.tasks import _enter_task, _leave_task, current_task
from collections.abc import Awaitable, Callable, Coroutine, Generator, MutableMapping
from types import CoroutineType
from typing import TYPE_CHECKING, Any

import anyio

from ..core.subscriber import CloseReason, Subscriber
from ..servers.connection import Connection

if TYPE_CHECKING:
    from .listener import Listener

__all__ = ["Receive", "ResponseWriter", "Send"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LAST = {"type": "http.response.body", "body": b"", "more_body": False}
# Behind a body every server refuses it. Middlewares hand it on as it is, and those that complete
# responses, such as Starlette's BaseHTTPMiddleware, have nothing to complete behind it.
_CUT = {"type": "http.response.pathsend", "path": ""}


class ResponseWriter:
    """Writes a subscriber's frames to its response, from the first to the end.

    Args:
        connection: the request's.
        on_end: called when nothing more will be written.

    Attributes:
        error: what send() raised, unless that only says that the client has left.
    """

    __slots__ = (
        "_connection",
        "_context",
        "_is_cut",
        "_is_finished",
        "_listener",
        "_loop",
        "_on_end",
        "_send",
        "_subscriber",
        "_suspended",
        "_task",
        "_waiter",
        "error",
    )

    writes_at_once = True
    # The server makes the chunks.
    is_chunked = False

    def __init__(
        self,
        subscriber: Subscriber,
        listener: Listener,
        send: Send,
        connection: Connection,
        on_end: Callable[[], None],
    ) -> None:
        self._subscriber = subscriber
        self._listener = listener
        self._send = send
        self._connection = connection
        self._on_end = on_end
        self._is_finished = False
        # By a message that is refused.
        self._is_cut = False
        self.error: BaseException | None = None
        # A write that could not be done at once.
        self._suspended: _Suspended | None = None
        # Where the task rests.
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        # Middlewares find the request's context variables, and a task, as in any response.
        self._context = contextvars.copy_context()
        self._task = self._loop.create_task(self._finish_writes(), context=self._context)

    def wake(self) -> None:
        """There is something to take, or something to cut off."""
        if self._subscriber.is_aborted:
            self._abort()
        elif self._suspended is None and not self._is_finished:
            self._go_on()

    def _go_on(self) -> None:
        while True:
            frames, closed = self._listener.take(self._subscriber)
            if frames and not self.write(b"".join(frames)):
                return
            if closed is not None:
                self._finish(closed)
                return
            if not frames:
                return

    def _finish(self, closed: CloseReason) -> None:
        self._is_finished = True
        if closed.is_complete:
            if self._start(_LAST):
                self._on_end()
        elif closed.is_abrupt:
            self._abort()
        elif not self._connection.close():
            self._cut()

    def _cut(self) -> None:
        """Leaves the response unfinished, for its server to break off: its connection is hidden."""
        self._is_cut = True
        if self._start(_CUT):
            self._on_end()

    def _abort(self) -> None:
        self._connection.abort()
        self._on_end()

    def write(self, data: bytes) -> bool:
        """Begins a write; False if it has to wait: then the task finishes it."""
        return self._start({"type": "http.response.body", "body": data, "more_body": True})

    def _start(self, message: MutableMapping[str, Any]) -> bool:
        """Whether it is done already."""
        loop, task = self._loop, self._task
        outer = current_task(loop)
        if outer is not None:
            _leave_task(loop, outer)
        _enter_task(loop, task)
        try:
            sending = self._send(message)
            coroutine = sending if isinstance(sending, CoroutineType) else _coroutine(sending)
            awaited = self._context.run(coroutine.send, None)
        except StopIteration:
            return True
        except (Exception, asyncio.CancelledError) as exc:
            self._see(exc)
            return True
        finally:
            _leave_task(loop, task)
            if outer is not None:
                _enter_task(loop, outer)
        self._suspended = _Suspended(coroutine, awaited)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return False

    async def _finish_writes(self) -> None:
        # One coroutine: at rest each costs memory.
        while self._suspended is not None or not self._is_finished:
            if self._suspended is None:
                self._waiter = self._loop.create_future()
                await self._waiter
            assert self._suspended is not None
            try:
                await self._suspended
            except asyncio.CancelledError as exc:
                if self._task.cancelling():
                    raise
                self._see(exc)
            except Exception as exc:
                self._see(exc)
            self._suspended = None
            # Not in this step: the next write enters its context.
            self._loop.call_soon(self._written)

    def _written(self) -> None:
        if self._suspended is not None:
            # Somebody else went on, and the next write has to wait as well.
            return
        if self._is_finished:
            self._on_end()
        else:
            self._listener.wake(self._subscriber)

    def _see(self, error: BaseException) -> None:
        self._is_finished = True
        # Some servers say so that the client has left; receive() says it too.
        if not self._is_cut and not isinstance(error, OSError | asyncio.CancelledError):
            self.error = self.error or error
        self._on_end()

    def stop(self) -> None:
        """Nothing more is begun."""
        self._is_finished = True
        self._on_end = _nothing

    async def aclose(self) -> None:
        """After stop(): what is under way is given up."""
        with anyio.CancelScope(shield=True):
            # The task takes up in its next turn what has just begun.
            await asyncio.sleep(0)
            self._task.cancel()
            await asyncio.wait([self._task])


class _Suspended:
    """The rest of a coroutine that was begun elsewhere in the name of the task that awaits this.

    Args:
        awaited: what it waits for.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: object) -> None:
        self._coroutine = coroutine
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            while True:
                try:
                    result = yield self._awaited
                except BaseException as exc:
                    self._awaited = self._coroutine.throw(exc)
                else:
                    self._awaited = self._coroutine.send(result)
        except StopIteration:
            return


async def _coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


def _nothing() -> None:
    pass
