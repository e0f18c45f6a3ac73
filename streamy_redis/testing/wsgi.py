"""A request to a WSGI app, such as Flask, on a thread of its own."""

from __future__ import annotations

import copy
import io
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..exceptions import ResponseCut
from .connection import LEAVE_TIMEOUT, Receiver

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["WsgiClient", "WsgiConnection", "wsgi_request"]


@runtime_checkable
class WsgiClient(Protocol):
    """Flask's test client, or any other of Werkzeug's."""

    application: Any

    def open(self, *args: Any, **kwargs: Any) -> Any: ...


def wsgi_request(client: WsgiClient, path: str, headers: Mapping[str, str]) -> WSGIEnvironment:
    """The request that the client would make: with its cookies, environment and app's settings."""
    # The client makes it for an app that takes it and does nothing.
    recorder = _Recorder(client.application)
    twin = copy.copy(client)
    twin.application = recorder
    twin.open(path, headers=dict(headers))
    # A context that the test may look into: it has to be left on the thread that entered it.
    recorder.environ.pop("werkzeug.debug.preserve_context", None)
    return recorder.environ | {"wsgi.input": io.BytesIO(), "wsgi.multithread": True}


class _Recorder:
    """Takes the place of an app, with the app's settings."""

    environ: WSGIEnvironment

    def __init__(self, app: Any) -> None:
        self._app = app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._app, name)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        self.environ = environ
        start_response("204 No Content", [])
        return []


class WsgiConnection:
    """One request, from its beginning to its end; who leaves it early closes the body.

    The body of ours then ends at once. Another that waits can't be woken: its thread, which keeps
    no process from ending, closes it when the next piece comes.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment, receiver: Receiver) -> None:
        self._app = app
        self._environ = environ
        self._receiver = receiver
        self._is_left = False
        # From the app's answer until somebody closes it.
        self._body: Iterable[bytes] | None = None
        self._closing = threading.Lock()
        # What closing it raised, until that is told.
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="streamy-redis-testing", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """The client goes. Repeating it is harmless."""
        self._is_left = True
        # Not the test's: an app may do at the end what takes long.
        closing = threading.Thread(target=self._close, name="streamy-redis-testing", daemon=True)
        closing.start()
        closing.join(LEAVE_TIMEOUT)
        self._thread.join(LEAVE_TIMEOUT)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _close(self) -> None:
        try:
            self._close_body()
        except BaseException as exc:
            # Raised in the test's thread.
            self._error = exc

    def _run(self) -> None:
        error = None
        try:
            # leave() may close it, and forget it, meanwhile.
            body = self._body = self._app(self._environ, self._start_response)
            for chunk in body:
                if self._is_left:
                    break
                self._receiver.receive_body(chunk)
            self._receiver.complete()
        except ResponseCut:
            # As a server does: it breaks off the connection, and that is all.
            pass
        except BaseException as exc:
            # The test's thread raises it.
            error = exc
        try:
            self._close_body()
        except Exception as exc:
            error = error or exc
        self._receiver.finish(error)

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: object = None, /
    ) -> Callable[[bytes], object]:
        self._receiver.receive_head(int(status.split()[0]), headers)
        return self._receiver.receive_body

    def _close_body(self) -> None:
        # Once, as servers do: an app may count on it.
        with self._closing:
            body, self._body = self._body, None
        try:
            getattr(body, "close", _nothing)()
        except ValueError as exc:
            if str(exc) != "generator already executing":
                raise
            self._body = body


def _nothing() -> None:
    pass
