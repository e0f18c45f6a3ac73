"""One face for the test clients of all frameworks: one list of behaviours runs on each."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from streamy_redis.testing import open_stream
from tests.managers import LoopThread

from .apps import Hooks, flask_app, starlette_app

with warnings.catch_warnings():
    # Newer ones would rather have httpx2 than httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["KINDS", "Site", "site_of"]

# Starlette's client has one event loop for all requests only when it is used with `with`.
KINDS = ("flask", "starlette", "starlette-without-with", "httpx")


class Site:
    """An app and a client."""

    def __init__(self, kind: str, client: Any, hooks: Hooks) -> None:
        self.kind = kind
        self.client = client
        self.hooks = hooks

    def open(self, path: str, **kwargs: Any) -> AbstractContextManager[Any]:
        return open_stream(self.client, path, **kwargs)

    def post(self, path: str, content: str = "") -> int:
        """The status."""
        # The clients name it differently.
        name = "data" if self.kind == "flask" else "content"
        status: int = self.client.post(path, **{name: content.encode()}).status_code
        return status

    @property
    def left_over(self) -> list[object]:
        """Threads of connections that are not done."""
        return [t for t in threading.enumerate() if t.name == "streamy-redis-testing"]


class HttpxSite(Site):
    """httpx.AsyncClient, whose test is a coroutine: here it runs on a loop's thread."""

    def __init__(self, kind: str, client: Any, hooks: Hooks, loop: LoopThread) -> None:
        super().__init__(kind, client, hooks)
        self._loop = loop

    @contextmanager
    def open(self, path: str, **kwargs: Any) -> Iterator[Any]:
        stream = _Blocking(open_stream(self.client, path, **kwargs), self._loop)
        self._loop.run(stream.stream.__aenter__())
        try:
            yield stream
        except BaseException as exc:
            self._loop.run(stream.stream.__aexit__(type(exc), exc, exc.__traceback__))
            raise
        self._loop.run(stream.stream.__aexit__(None, None, None))

    def post(self, path: str, content: str = "") -> int:
        status: int = self._loop.run(self.client.post(path, content=content.encode())).status_code
        return status

    @property
    def left_over(self) -> list[object]:
        """Tasks of connections that are not done."""
        return [task for task in self._loop.tasks() if "Request" in repr(task)]


class _Blocking:
    """An AsyncEventStream, called from outside of its loop."""

    def __init__(self, stream: Any, loop: LoopThread) -> None:
        self.stream = stream
        self._loop = loop

    def collect(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop.run(self.stream.collect(*args, **kwargs))

    def collect_to_end(self, *args: Any, **kwargs: Any) -> Any:
        return self._loop.run(self.stream.collect_to_end(*args, **kwargs))

    def reconnect(self) -> None:
        self._loop.run(self.stream.reconnect())

    def close(self) -> None:
        self._loop.run(self.stream.aclose())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def site_of(kind: str, url: str, **config: Any) -> Iterator[Site]:
    """A new app of this kind, on this Redis, and its client."""
    hooks = Hooks()
    settings = StreamConfig(**{"send_timeout": 1.0, **config})
    if kind == "flask":
        with StreamManager(url, config=settings) as streams:
            yield Site(kind, flask_app(streams, hooks).test_client(), hooks)
    elif kind == "httpx":
        loop = LoopThread()
        tasks = AsyncStreamManager(url, config=settings)
        transport = httpx.ASGITransport(app=starlette_app(tasks, hooks))
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        yield HttpxSite(kind, client, hooks, loop)
        loop.run(client.aclose())
        loop.run(tasks.aclose())
        loop.close()
    else:
        tasks = AsyncStreamManager(url, config=settings)
        client = TestClient(starlette_app(tasks, hooks))
        if kind == "starlette":
            with client:
                yield Site(kind, client, hooks)
        else:
            yield Site(kind, client, hooks)
    hooks.release.set()
