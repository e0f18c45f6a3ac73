"""An application on a real server, and what a test does with it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis

from streamy_redis import StreamConfig, StreamManager

from .browser import EventSource
from .web_servers import GTHREAD_THREADS, ServerKind, WebServer, http

__all__ = ["CONFIG", "Site", "app_for"]

# Short, so that tests are: what is random is random in a narrow band.
CONFIG = {"retry_interval": (0.05, 0.2), "keep_alive_interval": 0.3}
# The stream of each site's witness.
_WITNESSED = "what is written"


def app_for(kind: ServerKind) -> str:
    return "tests.apps.starlette_app:app" if kind.is_asgi else "tests.apps.flask_app:app"


class Site:
    """A server that runs an application, and a sender in another process: this one."""

    def __init__(self, server: WebServer, url: str, prefix: str) -> None:
        self.server = server
        self.kind = server.kind
        self.redis_url = url
        self.prefix = prefix
        self.streams = StreamManager(url, config=StreamConfig(prefix=prefix))
        self._browsers: list[EventSource] = []
        self._witness: EventSource | None = None

    def browser(self, stream_id: str, *, path: str = "events", **kwargs: Any) -> EventSource:
        """An EventSource on a stream; what EventSource doesn't take goes into the query."""
        own = {
            key: kwargs.pop(key)
            for key in ("headers", "last_event_id", "retry", "start", "receive_buffer")
            if key in kwargs
        }
        browser = EventSource(self.server.stream_url(path, stream_id, **kwargs), **own)
        self._browsers.append(browser)
        return browser

    def subscribed(self, stream_id: str) -> int:
        """How many connections listen to a stream's channel."""
        store = redis.Redis.from_url(self.redis_url)
        try:
            return store.pubsub_numsub(f"{self.prefix}:{{{stream_id}}}")[0][1]  # type: ignore[no-any-return]
        finally:
            store.close()

    def wait_written(self) -> None:
        """Until the one worker has written what was sent so far, to all clients that have room."""
        if self._witness is None:
            self._witness = self.browser(_WITNESSED).wait_open()
        # Its listener hears all streams in order, and flushes some clients before others: it
        # begins the second flush when the first is over.
        for _ in range(2):
            count = len(self._witness.messages)
            self.streams.send_event(_WITNESSED, "x")
            self._witness.wait_for(count + 1, 20)

    def make_all_threads(self) -> None:
        """gthread makes its threads as requests need them, and keeps them: all of one worker's."""
        if self.kind.name == "gunicorn-gthread":
            with ThreadPoolExecutor(GTHREAD_THREADS) as requests:
                url = f"{self.server.url}/together/{GTHREAD_THREADS}"
                list(requests.map(http.get, [url] * GTHREAD_THREADS))

    def leave(self) -> None:
        """Close every browser of the test."""
        browsers, self._browsers = self._browsers, []
        self._witness = None
        for browser in browsers:
            browser.close()

    def close(self) -> None:
        self.leave()
        self.streams.close()
        self.server.close()
