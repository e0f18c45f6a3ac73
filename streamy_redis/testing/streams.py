"""A stream as a test reads it, through the test client of its framework."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NoReturn, TypeVar, overload
from wsgiref.headers import Headers

from ..config import check_duration
from .asgi import (
    AsgiConnection,
    AsyncClient,
    AsyncConnection,
    Request,
    StarletteClient,
    app_of,
    async_scope_of,
    scope_of,
)
from .parser import StreamEvent
from .response import MissingEvents, Response
from .wsgi import WsgiClient, WsgiConnection, wsgi_request

__all__ = ["AsyncEventStream", "EventStream", "open_stream"]

T = TypeVar("T")


@overload
def open_stream(
    client: WsgiClient | StarletteClient,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    last_event_id: str = "",
    timeout: float = 5.0,
    wait_open: bool = True,
) -> EventStream: ...
@overload
def open_stream(
    client: AsyncClient,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    last_event_id: str = "",
    timeout: float = 5.0,
    wait_open: bool = True,
) -> AsyncEventStream: ...
def open_stream(
    client: WsgiClient | StarletteClient | AsyncClient,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    last_event_id: str = "",
    timeout: float = 5.0,
    wait_open: bool = True,
) -> EventStream | AsyncEventStream:
    """A stream of the app under test, as an EventSource would read it: a context manager.

    ::

        with open_stream(client, "/events/job-1") as stream:
            client.post("/jobs/1")
            assert [event.data for event in stream.collect(2)] == ["begun", "done"]

    The app runs in this process, on a thread or in the event loop of the client. It gets the
    request that the client would make, with its cookies, headers, auth and address. Nothing here
    waits longer than ``timeout`` seconds, whatever the app does. Leaving the block, ``close`` and
    ``reconnect`` tell it that its client has gone; one that doesn't notice at once is given up to
    3 s. A TestClient that is left first ends its streams.

    Args:
        client: ``app.test_client()`` of Flask, ``TestClient(app)`` of Starlette or FastAPI, or an
            ``httpx.AsyncClient`` whose transport is an ``ASGITransport``: then use
            ``async with``, and ``await`` the methods.
        path: of the endpoint, with its query.
        headers: of the request, over the client's.
        last_event_id: the cursor that the client comes with; "" for a newcomer.
        timeout: seconds that opening, and each method that is not told otherwise, may take.
        wait_open: whether entering waits for ``stream-open``: whatever is sent later is received.
            False for a stream that can't open yet, because Redis is away.

    Raises:
        TypeError: the client is none of these.
    """
    check_duration("timeout", timeout)
    head = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **(headers or {})}
    if isinstance(client, WsgiClient | StarletteClient):
        return EventStream(client, path, head, last_event_id, timeout, wait_open=wait_open)
    if isinstance(client, AsyncClient):
        return AsyncEventStream(client, path, head, last_event_id, timeout, wait_open=wait_open)
    raise TypeError(
        "open_stream() takes Flask's test_client(), Starlette's TestClient or an "
        f"httpx.AsyncClient, not {type(client).__name__}"
    )


class _Page:
    """What both kinds of stream know without waiting."""

    def __init__(
        self,
        path: str,
        headers: Mapping[str, str],
        last_event_id: str,
        timeout: float,
        *,
        wait_open: bool,
    ) -> None:
        self._path = path
        self._headers = headers
        self._timeout = timeout
        self._wait_open = wait_open
        self._response = Response(f"GET {path}", last_event_id)

    @property
    def status(self) -> int:
        """Of the newest response, such as 200, or 204 after the end; 0 while there is none."""
        return self._response.status or 0

    @property
    def headers(self) -> Headers:
        """Of the newest response; case doesn't matter in their names."""
        return self._response.headers

    @property
    def text(self) -> str:
        """The body of an answer that is no stream."""
        return self._response.body.decode(errors="replace")

    @property
    def is_over(self) -> bool:
        """Whether the newest response has ended."""
        return self._response.is_over

    @property
    def is_complete(self) -> bool:
        """Whether it ended as one that is complete; at a stop, say, it is cut, and resumed."""
        return self._response.is_complete

    @property
    def last_event_id(self) -> str:
        """The cursor, which is the id of what came last, collected or not; "" if none had one."""
        return self._response.last_event_id

    def _request_headers(self) -> dict[str, str]:
        cursor = self.last_event_id
        return {**self._headers, **({"Last-Event-ID": cursor} if cursor else {})}

    def _limit(self, timeout: float | None) -> float:
        if timeout is None:
            return self._timeout
        check_duration("timeout", timeout)
        return timeout

    def _has_begun(self, response: Response) -> bool:
        return response.has_begun(wait_open=self._wait_open)


class EventStream(_Page):
    """A stream in a test of Flask, or of Starlette and FastAPI with TestClient.

    Made by ``open_stream``. For one thread.
    """

    def __init__(
        self,
        client: WsgiClient | StarletteClient,
        path: str,
        headers: Mapping[str, str],
        last_event_id: str,
        timeout: float,
        *,
        wait_open: bool,
    ) -> None:
        super().__init__(path, headers, last_event_id, timeout, wait_open=wait_open)
        self._client = client
        self._inbox = _Inbox(self._response)
        self._connection: WsgiConnection | AsgiConnection | None = None

    def __enter__(self) -> EventStream:
        self._open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leave()
        if exc is None:
            self._response.raise_untold()

    def collect(self, count: int, timeout: float | None = None) -> list[StreamEvent]:
        """The next ``count`` events, resets and the end included; ``stream-open`` is none.

        Args:
            timeout: seconds to wait for them; None for that of ``open_stream``.

        Raises:
            MissingEvents: they don't come in time, or can't come any more. None is taken then.
        """
        _check_count(count)
        limit = self._limit(timeout)
        events = self._inbox.wait(lambda response: response.take(count), limit)
        return events or self._fail(f"{self._response.uncollected} of {count} events came", limit)

    def collect_to_end(self, timeout: float | None = None) -> list[StreamEvent]:
        """All events up to ``stream-end``, which is the last of them.

        Args:
            timeout: seconds to wait for the end; None for that of ``open_stream``.

        Raises:
            MissingEvents: the end doesn't come in time, or can't come any more.
        """
        limit = self._limit(timeout)
        return self._inbox.wait(Response.take_to_end, limit) or self._fail(_NO_END, limit)

    def close(self) -> None:
        """Goes away, as a page that loses its connection; what came by then can be collected.

        Repeating it is harmless.
        """
        self._leave()
        self._response.raise_untold()

    def reconnect(self) -> None:
        """Comes back with the cursor, as an EventSource does, but at once.

        ``status`` is 204 then if the stream had ended at the cursor: an EventSource would stop.
        """
        self.close()
        self._response = self._inbox.next_response()
        self._inbox = _Inbox(self._response)
        self._open()

    def _open(self) -> None:
        self._connection = self._connect()
        try:
            if not self._inbox.wait(self._has_begun, self._timeout):
                self._fail(_NOT_OPEN, self._timeout)
        except BaseException:
            self._leave()
            raise
        if not self._response.is_stream:
            self._response.raise_untold()

    def _connect(self) -> WsgiConnection | AsgiConnection:
        client, headers = self._client, self._request_headers()
        if isinstance(client, WsgiClient):
            request = wsgi_request(client, self._path, headers)
            return WsgiConnection(client.application, request, self._inbox)
        scope = scope_of(client, self._path, headers)
        return AsgiConnection(Request(client.app, scope, self._inbox), client.portal, self._inbox)

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.leave()

    def _fail(self, problem: str, limit: float) -> NoReturn:
        raise self._inbox.missing(f"{problem} within {limit:g} s")


class AsyncEventStream(_Page):
    """A stream in a test that is a coroutine, with an httpx.AsyncClient around the app.

    Made by ``open_stream``. The app runs in the test's event loop. For one task.
    """

    def __init__(
        self,
        client: AsyncClient,
        path: str,
        headers: Mapping[str, str],
        last_event_id: str,
        timeout: float,
        *,
        wait_open: bool,
    ) -> None:
        super().__init__(path, headers, last_event_id, timeout, wait_open=wait_open)
        self._client = client
        self._app = app_of(client)
        self._inbox = _AsyncInbox(self._response)
        self._connection: AsyncConnection | None = None

    async def __aenter__(self) -> AsyncEventStream:
        await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()
        if exc is None:
            self._response.raise_untold()

    async def collect(
        self,
        count: int,
        timeout: float | None = None,  # noqa: ASYNC109  # as in EventStream
    ) -> list[StreamEvent]:
        """The next ``count`` events, resets and the end included; ``stream-open`` is none.

        Args:
            timeout: seconds to wait for them; None for that of ``open_stream``.

        Raises:
            MissingEvents: they don't come in time, or can't come any more. None is taken then.
        """
        _check_count(count)
        limit = self._limit(timeout)
        events = await self._inbox.wait(lambda response: response.take(count), limit)
        return events or self._fail(f"{self._response.uncollected} of {count} events came", limit)

    async def collect_to_end(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # as in EventStream
    ) -> list[StreamEvent]:
        """All events up to ``stream-end``, which is the last of them.

        Args:
            timeout: seconds to wait for the end; None for that of ``open_stream``.

        Raises:
            MissingEvents: the end doesn't come in time, or can't come any more.
        """
        limit = self._limit(timeout)
        return await self._inbox.wait(Response.take_to_end, limit) or self._fail(_NO_END, limit)

    async def aclose(self) -> None:
        """Goes away, as a page that loses its connection; what came by then can be collected.

        Repeating it is harmless.
        """
        await self._leave()
        self._response.raise_untold()

    async def reconnect(self) -> None:
        """Comes back with the cursor, as an EventSource does, but at once.

        ``status`` is 204 then if the stream had ended at the cursor: an EventSource would stop.
        """
        await self.aclose()
        self._response = self._response.next_one()
        self._inbox = _AsyncInbox(self._response)
        await self._open()

    async def _open(self) -> None:
        scope = await async_scope_of(self._client, self._path, self._request_headers())
        self._connection = AsyncConnection(Request(self._app, scope, self._inbox))
        try:
            if not await self._inbox.wait(self._has_begun, self._timeout):
                self._fail(_NOT_OPEN, self._timeout)
        except BaseException:
            await self._leave()
            raise
        if not self._response.is_stream:
            self._response.raise_untold()

    async def _leave(self) -> None:
        if self._connection is not None:
            await self._connection.leave()

    def _fail(self, problem: str, limit: float) -> NoReturn:
        raise self._response.missing(f"{problem} within {limit:g} s")


_NO_END = "stream-end didn't come"
_NOT_OPEN = "the stream didn't open"


def _check_count(count: int) -> None:
    if count < 1:
        raise ValueError(
            "count must be at least 1; to see that nothing comes, send something that does, "
            "and see that it is the next"
        )


class _Inbox:
    """A response that a connection's thread is told of, and a test's thread waits for."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._changed = threading.Condition()

    def receive_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        with self._changed:
            self._response.receive_head(status, headers)
            self._changed.notify_all()

    def receive_body(self, chunk: bytes) -> None:
        with self._changed:
            self._response.receive_body(chunk)
            self._changed.notify_all()

    def complete(self) -> None:
        with self._changed:
            self._response.complete()

    def finish(self, error: BaseException | None) -> None:
        with self._changed:
            self._response.finish(error)
            self._changed.notify_all()

    def wait(self, ask: Callable[[Response], T | None], seconds: float) -> T | None:
        """The first answer that is true; None if there is none in time."""
        with self._changed:
            return self._changed.wait_for(lambda: ask(self._response), seconds) or None

    def missing(self, problem: str) -> MissingEvents:
        with self._changed:
            return self._response.missing(problem)

    def next_response(self) -> Response:
        with self._changed:
            return self._response.next_one()


class _AsyncInbox:
    """A response that tasks of one event loop are told of and wait for."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._changed = asyncio.Event()

    def receive_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._response.receive_head(status, headers)
        self._changed.set()

    def receive_body(self, chunk: bytes) -> None:
        self._response.receive_body(chunk)
        self._changed.set()

    def complete(self) -> None:
        self._response.complete()

    def finish(self, error: BaseException | None) -> None:
        self._response.finish(error)
        self._changed.set()

    async def wait(self, ask: Callable[[Response], T | None], seconds: float) -> T | None:
        """The first answer that is true; None if there is none in time."""
        try:
            async with asyncio.timeout(seconds):
                while not (answer := ask(self._response)):
                    self._changed.clear()
                    await self._changed.wait()
                return answer
        except TimeoutError:
            return None
