"""A request to an ASGI app, such as Starlette and FastAPI, on the event loop where it belongs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .connection import LEAVE_TIMEOUT, Receiver

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

__all__ = [
    "AsgiConnection",
    "AsyncClient",
    "AsyncConnection",
    "Request",
    "StarletteClient",
    "app_of",
    "async_scope_of",
    "scope_of",
]

Message = MutableMapping[str, Any]
App = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


@runtime_checkable
class StarletteClient(Protocol):
    """Starlette's and FastAPI's TestClient.

    Its portal leads to the app's event loop, as long as the client is used with ``with``.
    """

    app: Any
    app_state: dict[str, Any]
    auth: Any
    portal: BlockingPortal | None

    def build_request(self, method: str, url: str, *, headers: Any) -> Any: ...


@runtime_checkable
class AsyncClient(Protocol):
    """httpx.AsyncClient around an app: ``AsyncClient(transport=ASGITransport(app=app))``."""

    auth: Any

    def build_request(self, method: str, url: str, *, headers: Any) -> Any: ...
    async def aclose(self) -> None: ...


def app_of(client: AsyncClient) -> App:
    """The app that a client is made for.

    Raises:
        TypeError: it is made for the network.
    """
    app: App | None = getattr(_transport_of(client), "app", None)
    if app is None:
        raise TypeError(
            "open_stream() needs an app to talk to: httpx.AsyncClient(transport="
            "httpx.ASGITransport(app=app), base_url='http://test')"
        )
    return app


def scope_of(client: StarletteClient, path: str, headers: Mapping[str, str]) -> Message:
    """The request that the client would make: with its cookies, headers, auth and address.

    Of an auth that asks the app before it knows what to send, what it asks first.
    """
    request = client.build_request("GET", path, headers=dict(headers))
    if client.auth is not None:
        request = next(client.auth.sync_auth_flow(request))
    return _scope(client, request)


async def async_scope_of(client: AsyncClient, path: str, headers: Mapping[str, str]) -> Message:
    """The same of an httpx.AsyncClient."""
    request = client.build_request("GET", path, headers=dict(headers))
    if client.auth is not None:
        async with contextlib.aclosing(client.auth.async_auth_flow(request)) as flow:
            request = await anext(flow)
    return _scope(client, request)


def _scope(client: StarletteClient | AsyncClient, request: Any) -> Message:
    url = request.url
    transport = _transport_of(client)
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": getattr(transport, "root_path", ""),
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": getattr(transport, "client", ("testclient", 50000)),
        "server": (url.host, url.port),
        "extensions": {},
        "state": dict(getattr(client, "app_state", {})),
    }


def _transport_of(client: StarletteClient | AsyncClient) -> Any:
    # httpx has no public name for the way that its requests go.
    return getattr(client, "_transport", None)


class Request:
    """One request: served in the running loop, until the app is done or the client has left."""

    def __init__(self, app: App, scope: Message, receiver: Receiver) -> None:
        self._app = app
        self._scope = scope
        self._receiver = receiver
        self._has_been_read = False
        self._is_left = False
        # While it is served.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = asyncio.Event()
        # By the client or by the response, whichever is first.
        self._ended = asyncio.Event()

    def leave(self) -> None:
        """The client goes. From any thread; repeating it is harmless."""
        self._is_left = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and all of it gone
                self._loop.call_soon_threadsafe(self._note_leaving)

    def _note_leaving(self) -> None:
        self._left.set()
        self._ended.set()

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        if self._is_left:
            self._note_leaving()
        app = asyncio.ensure_future(self._app(self._scope, self._receive, self._send))
        left = asyncio.ensure_future(self._left.wait())
        try:
            await asyncio.wait([app, left], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([app], timeout=LEAVE_TIMEOUT)
        finally:
            left.cancel()
            app.cancel()
            await asyncio.wait([app], timeout=LEAVE_TIMEOUT)
            self._receiver.finish(_error_of(app))

    async def _receive(self) -> Message:
        if not self._has_been_read:
            self._has_been_read = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._ended.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            fields = message.get("headers", ())
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
            self._receiver.receive_head(message["status"], headers)
        elif message["type"] == "http.response.body":
            self._receiver.receive_body(message.get("body", b""))
            if not message.get("more_body", False):
                self._receiver.complete()
                self._ended.set()


def _error_of(app: asyncio.Future[None]) -> BaseException | None:
    return app.exception() if app.done() and not app.cancelled() else None


class AsgiConnection:
    """A request that a test's thread leads: to the loop of its client, or to one of its own."""

    def __init__(self, request: Request, portal: BlockingPortal | None, receiver: Receiver) -> None:
        self._request = request
        self._portal = portal
        self._receiver = receiver
        # Not the test's: a loop that is blocked would keep it waiting.
        self._thread = threading.Thread(target=self._run, name="streamy-redis-testing", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """The client goes, and the app is cancelled if it doesn't notice. May be repeated."""
        self._request.leave()
        self._thread.join(3 * LEAVE_TIMEOUT)

    def _run(self) -> None:
        try:
            if self._portal is not None:
                self._portal.call(self._serve_in, self._portal)
            else:
                asyncio.run(self._request.serve())
        except BaseException as exc:
            # Raised in the test's thread.
            self._receiver.finish(exc)

    async def _serve_in(self, portal: BlockingPortal) -> None:
        """Until the client's block is left as well, which would wait for it for ever."""
        stopped = asyncio.ensure_future(portal.sleep_until_stopped())
        stopped.add_done_callback(lambda _: self._request.leave())
        try:
            await self._request.serve()
        finally:
            stopped.cancel()


class AsyncConnection:
    """A request of a test that is a coroutine, in the same event loop."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._task = asyncio.ensure_future(request.serve())

    async def leave(self) -> None:
        """The client goes, and the app is cancelled if it doesn't notice. May be repeated."""
        self._request.leave()
        await asyncio.wait([self._task], timeout=3 * LEAVE_TIMEOUT)
