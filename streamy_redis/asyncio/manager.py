"""AsyncStreamManager: streams for Starlette, FastAPI and asyncio jobs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
import redis.asyncio

from ..adapters.frameworks import import_adapter, refuse_in_flask
from ..config import (
    LARGEST_BATCH_BYTES,
    LARGEST_BATCH_EVENTS,
    MOST_WITNESSES,
    READ_TIMEOUT,
    WRITER_INTERVAL,
    StreamConfig,
    check_duration,
    checked_config,
)
from ..connections import async_pool, check_url, url_from_environment
from ..core.event import encode_end, encode_event, encode_events, validate_event_name
from ..core.headers import stream_headers
from ..core.history import StreamInfo
from ..core.publication import Position
from ..core.replay import Replay, validate_replay
from ..core.stats import StreamStats
from ..core.subscriber import Pacing
from ..core.witness import Witnesses
from ..exceptions import InvalidEvent
from ..keys import validate_idempotency_key, validate_stream_id
from ..servers.watch import make_room
from ..tally import Tally
from .coalescing import Writer
from .listener import Listener
from .pipelines import Pipelines
from .publisher import Publisher
from .stream import Stream
from .subscription import AsyncSubscription

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["AsyncStreamManager"]


class AsyncStreamManager:
    """Sends to streams, and serves them to browsers, through Redis. For asyncio.

    ::

        streams = AsyncStreamManager()

        @app.get("/stream/{room}")
        async def stream(room: str):
            return streams.get_stream(room)

        await streams.send_event("room", {"hello": "world"})

    Nothing is connected or started before first use. One manager may be used from several event
    loops: each has its own connections, which are closed with the loop's tasks. One that is
    dropped without ``aclose`` closes by itself, once nobody reads.

    Args:
        redis: a URL, a ``redis.asyncio.Redis``, or None for the environment's
            ``STREAMY_REDIS_URL`` or ``REDIS_URL``, or ``redis://localhost:6379/0``.
            ``memory://`` is a store inside this process, for development and tests.
        config: how streams are kept and delivered; None for ``StreamConfig.from_env()``.

    Raises:
        ValueError: redis, or what is asked in its place, is no URL of a Redis, or has a setting
            that can't work.
        TypeError: redis is of another kind, such as a client for threads.
        ValueError: a ``STREAMY_`` variable isn't valid.
    """

    def __init__(
        self,
        redis: str | redis.asyncio.Redis | None = None,
        *,
        config: StreamConfig | None = None,
    ) -> None:
        self._source = _checked(redis)
        self._given_config = config
        checked_config(config)
        if self._source is None:
            check_url(url_from_environment())
        # From the first use on.
        self._settled_config: StreamConfig | None = None
        self._loops: dict[asyncio.AbstractEventLoop, _Loop] = {}
        # What was acknowledged, by the Redis and the prefix: it outlives event loops.
        self._remembered: dict[tuple[object, str], Witnesses] = {}
        self._tally = Tally()
        import_adapter("starlette")
        # Nobody need close it.
        weakref.finalize(self, _give_up, self._loops).atexit = False

    @property
    def _config(self) -> StreamConfig:
        config = self._settled_config
        if config is None:
            config = self._settled_config = self._given_config or StreamConfig.from_env()
        return config

    # Sending

    async def send_event(
        self,
        stream_id: str,
        data: Any,
        event_name: str | None = None,
        *,
        retry: int | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Sends one event; when this returns, it is stored, and on its way to every subscriber.

        Storing and publishing are one step in Redis (EVALSHA; XADD and PUBLISH in it). Events that
        are sent one after another arrive in that order; of those that are sent at the same time
        Redis decides. A stream needs no opening: the first event makes it.

        Args:
            stream_id: a non-empty str of at most 512 bytes of UTF-8, no control characters.
            data: str as it is, bytes of UTF-8, anything else as JSON; at most
                ``max_event_size`` bytes of UTF-8, where each line after the first takes 6 more. CR
                and CRLF arrive as LF (HTML 9.2.6).
            event_name: the browser's event type; None and "" leave it to ``get_stream``. At most
                512 bytes of UTF-8 without CR, LF and NUL, and not beginning with ``stream-``.
            retry: milliseconds that browsers wait before they reconnect, 0 to 2147483647.
            idempotency_key: sends with the same key store one event, as long as it is in the
                history; a repeat returns the first one's id. A str under the rule of stream ids.

        Returns:
            The event's id, ``<epoch>-<seq>-<tag>``, which is what a browser sends back as
            Last-Event-ID; "" on a stream without history.

        Raises:
            InvalidEvent: an argument breaks a rule; nothing was sent.
            StreamEnded: the stream has ended; nothing was sent.
            RedisUnavailable: Redis can't be reached within ``send_timeout``, or refuses. The event
                may be stored: the error's ``idempotency_key`` makes repeating the send safe.
        """
        validate_stream_id(stream_id)
        config = self._config
        block = encode_event(
            data, event_name, retry, max_size=config.max_event_size, to_json=config.json_encoder
        )
        key = validate_idempotency_key(idempotency_key)
        ids = await self._loop.publisher.send(stream_id, [block], key)
        return ids[0]

    async def send_events(
        self, stream_id: str, events: Iterable[Any], *, idempotency_key: str | None = None
    ) -> list[str]:
        """Sends many events in one round trip: in order, contiguous, all or none.

        Args:
            stream_id: as in ``send_event``.
            events: any iterable; each item is data as in ``send_event``, or an ``Event``. An empty
                one sends nothing and doesn't ask Redis. At most 10,000, of 4 MiB together (one
                event always fits): it is one step of Redis, for which everybody else waits.
            idempotency_key: as in ``send_event``, for the whole batch.

        Returns:
            Their ids, one for each, in order.

        Raises:
            InvalidEvent: an item breaks a rule, and is named in the message, or they are too many;
                nothing was sent.
            StreamEnded: the stream has ended; nothing was sent.
            RedisUnavailable: as ``send_event``: all of them may be stored, or none.
        """
        validate_stream_id(stream_id)
        config = self._config
        blocks = encode_events(
            events,
            max_size=config.max_event_size,
            max_count=LARGEST_BATCH_EVENTS,
            max_total=LARGEST_BATCH_BYTES,
            to_json=config.json_encoder,
        )
        key = validate_idempotency_key(idempotency_key)
        return await self._loop.publisher.send(stream_id, blocks, key) if blocks else []

    async def end_stream(self, stream_id: str, data: Any = None) -> bool:
        """Ends a stream: its clients get a ``stream-end`` event with data and stop reconnecting.

        Who is away gets what is missing and the end when they come back; whoever comes back with
        the end as their cursor is answered 204, which stops an EventSource. The end is remembered
        for ``ended_ttl`` seconds; until then every send is refused.

        Args:
            stream_id: as in ``send_event``. A stream without events can be ended, too.
            data: of the ``stream-end`` event, as in ``send_event``; None for ``{}``, an object that
                pages can parse.

        Returns:
            True if this call ended it, also if it had to be repeated; False if it had ended.

        Raises:
            InvalidEvent: an argument breaks a rule.
            RedisUnavailable: as ``send_event``. Repeating it is safe.
        """
        validate_stream_id(stream_id)
        config = self._config
        block = encode_end(data, max_size=config.max_event_size, to_json=config.json_encoder)
        return await self._loop.publisher.end(stream_id, block)

    def writer(self, stream_id: str, interval: float = WRITER_INTERVAL) -> Writer:
        """Writes text piece by piece, such as a model's tokens: an async context manager.

        What is written within interval seconds goes in one event, whose data is the joined text.
        Leaving the block sends the rest and ends the stream, with data that says why:
        ``{"reason": "done"}``, ``{"reason": "failed", "error": "ValueError"}`` when the block
        raised, ``{"reason": "cancelled"}`` when its task was cancelled. See ``Writer`` for
        what happens while Redis is away.

        A page that opens with ``replay="all"`` shows the whole text as long as it is in the
        history: at 0.03 s that are up to 33 of its ``history_length`` events a second.

        Args:
            stream_id: as in ``send_event``.
            interval: seconds, at least 0.001.

        Returns:
            A ``Writer``, with the coroutines ``write(text, event_name=None)``, ``flush()`` and
            ``aclose(data)``.

        Raises:
            InvalidEvent, ValueError, TypeError: an argument breaks a rule.
        """
        validate_stream_id(stream_id)
        check_duration("interval", interval)
        return Writer(
            lambda: self._loop.publisher,
            self._config,
            stream_id,
            interval,
        )

    async def delete_stream(self, stream_id: str) -> bool:
        """Forgets a stream's history and end, so that its id can be used anew (UNLINK).

        Open responses stay open, and get a reset before anything newer.

        Returns:
            True if there was one.

        Raises:
            InvalidEvent: the stream id breaks a rule.
            RedisUnavailable: as ``send_event``. Repeating it is safe.
        """
        return await self._loop.publisher.delete(validate_stream_id(stream_id))

    async def info(self, stream_id: str) -> StreamInfo:
        """What Redis holds of the stream, in one look (XINFO STREAM, PTTL).

        Its ``last_event_id`` is a cursor to render into a page, for ``get_stream``.

        Raises:
            InvalidEvent: the stream id breaks a rule.
            RedisUnavailable: Redis can't be reached within ``send_timeout``, or refuses.
        """
        return await self._loop.publisher.info(validate_stream_id(stream_id))

    # Receiving

    def get_stream(
        self,
        stream_id: str,
        event_name: str = "message",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        keep_alive_interval: float | None = None,
        *,
        last_event_id: str | None = None,
        replay: Replay = 0,
    ) -> Response:
        """A Starlette response that is the stream, for an endpoint to return.

        Nothing happens before it is served. Then the request's Last-Event-ID (HTML 9.2.4), or else
        its query's ``lastEventId``, which polyfills send instead, decides whether it resumes: the
        client gets what came after that event, or a ``stream-reset`` if that can't be shown any
        more. It ends when the stream ends. It is cut when the server stops or a bound of
        ``StreamConfig`` is reached; the client resumes by itself.

        Args:
            stream_id: as in ``send_event``. Who may read it is for the caller to check.
            event_name: the name of the events that were sent without one.
            headers: over the defaults, which are ``Content-Type``, ``Cache-Control`` and
                ``X-Accel-Buffering``; pairs for a name that comes twice.
            keep_alive_interval: seconds of silence before a comment is sent; None for that of
                ``StreamConfig``.
            last_event_id: a cursor for clients whose request has none, as rendered into a page.
                What is no event id counts as none.
            replay: for clients without a cursor: 0 from now on, n the newest n events, "all" the
                whole history.

        Returns:
            A response. It is served as 200 and the stream, also while Redis is away, since
            EventSource gives up on anything else; 204 for a client that has seen the end; 503 at
            ``max_subscribers``, or when few descriptors are left; 400 with the rule in it if the
            stream id breaks one, since ids come from URLs.

        Raises:
            InvalidEvent, ValueError, TypeError: any other argument breaks a rule.
            RuntimeError: a Flask view asks: use StreamManager.
        """
        refuse_in_flask()
        make_room()
        try:
            from ..adapters.starlette import StreamResponse, refuse_stream_id
        except ModuleNotFoundError as exc:
            message = "get_stream() needs an extra: pip install 'streamy-redis[starlette]'"
            raise ImportError(message) from exc

        name = validate_event_name(event_name)
        replay = validate_replay(replay)
        fields = stream_headers(headers)
        if keep_alive_interval is not None:
            check_duration("keep_alive_interval", keep_alive_interval)
        try:
            validate_stream_id(stream_id)
        except InvalidEvent as exc:
            return refuse_stream_id(exc)

        def new_stream(cursor_of_request: Position | None) -> Stream:
            return self._loop.new_stream(
                stream_id,
                cursor=cursor_of_request or Position.parse(last_event_id),
                replay=replay,
                event_name=name,
                keep_alive_interval=keep_alive_interval,
            )

        return StreamResponse(new_stream, fields)

    def subscribe(
        self,
        stream_id: str,
        *,
        last_event_id: str | None = None,
        replay: Replay = 0,
        timeout: float | None = None,
    ) -> AsyncSubscription:
        """The stream's events inside this process: an async context manager to iterate.

        Nothing happens before it is entered. See ``AsyncSubscription`` for what it does then.

        Args:
            stream_id: as in ``send_event``.
            last_event_id: the id of an event, after which to begin; it wins over replay.
            replay: without one: 0 from now on, n the newest n events, "all" the whole history.
            timeout: seconds without an event after which iterating raises TimeoutError; it may
                be gone on with. None waits for as long as it takes.

        Returns:
            A ``AsyncSubscription``, which yields ``ReceivedEvent``.

        Raises:
            InvalidEvent, ValueError, TypeError: an argument breaks a rule.
        """
        if timeout is not None:
            check_duration("timeout", timeout)
        return AsyncSubscription(
            lambda: self._loop.listener,
            self._config,
            validate_stream_id(stream_id),
            cursor=Position.parse(last_event_id),
            replay=validate_replay(replay),
            timeout=timeout,
        )

    # Watching

    def stats(self) -> StreamStats:
        """What this process has counted of this manager's streams, in all its event loops.

        Any thread may ask at any time: it neither waits, nor connects, nor starts anything. Before
        first use all is zero; after ``aclose`` the counts stay.
        """
        return self._tally.stats()

    # Life

    async def aclose(self) -> None:
        """Ends this event loop's responses and subscriptions, and closes its connections.

        Repeating it is harmless; a manager that is used again starts anew.
        """
        loop = self._loops.pop(asyncio.get_running_loop(), None)
        if loop is not None:
            await loop.close()
        if not self._loops:
            self._settled_config = None

    async def __aenter__(self) -> AsyncStreamManager:
        self._loop.listener.watch_server()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """A lifespan for Starlette and FastAPI, which closes the manager at the end.

        ``Starlette(lifespan=streams.lifespan)``; inside a lifespan of the app's own,
        ``async with streams:`` does the same.
        """
        async with self:
            yield

    @property
    def _loop(self) -> _Loop:
        running = asyncio.get_running_loop()
        loop = self._loops.get(running)
        if loop is None or loop.is_closed:
            for closed in [each for each in list(self._loops) if each.is_closed()]:
                left = self._loops.pop(closed, None)
                if left is not None:
                    left.listener.settle()
            source = self._source or url_from_environment()
            place = (source, self._config.prefix)
            loop = _Loop(source, self._config, self._tally, self._remembered.get(place))
            self._loops[running] = loop
            self._remembered = {place: loop.witnesses}
        return loop


def _give_up(loops: dict[asyncio.AbstractEventLoop, _Loop]) -> None:
    """Nobody refers to a manager any more."""
    for running, loop in loops.items():
        # One that is closed has closed what was its own.
        with contextlib.suppress(RuntimeError):
            running.call_soon_threadsafe(loop.give_up)


class _Loop:
    """What one event loop has of a manager."""

    def __init__(
        self,
        source: str | redis.asyncio.Redis,
        config: StreamConfig,
        tally: Tally,
        inherited: Witnesses | None,
    ) -> None:
        self._config = config
        self.witnesses = Witnesses(MOST_WITNESSES, inherited=inherited)
        # A slow send must not hold up readers, nor their timeout be the senders'.
        self._senders = Pipelines(source, config)
        self._readers = async_pool(source, connections=1, timeout=READ_TIMEOUT)
        self.publisher = Publisher(self._senders, config, self.witnesses)
        self.listener = Listener(self._readers, config, tally, self.witnesses)
        # asyncio.run() cancels this task like any other: then the connections are closed.
        self._keeper = asyncio.get_running_loop().create_task(
            self._keep(), name="streamy-redis-keeper", context=contextvars.Context()
        )

    async def _keep(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await self.listener.close()
                await self._senders.close()
                await self._readers.disconnect()

    @property
    def is_closed(self) -> bool:
        """Whether somebody has cancelled the task that keeps the connections."""
        return self._keeper.done()

    async def close(self) -> None:
        self._keeper.cancel()
        await asyncio.wait([self._keeper])

    def give_up(self) -> None:
        """Nobody adds more: closes once nobody reads."""
        self.listener.give_up(self._keeper.cancel)

    def new_stream(
        self,
        stream_id: str,
        *,
        cursor: Position | None,
        replay: Replay,
        event_name: str,
        keep_alive_interval: float | None,
    ) -> Stream:
        return Stream(
            self.listener,
            self._config,
            stream_id,
            cursor=cursor,
            replay=replay,
            event_name=None if event_name in ("", "message") else event_name,
            pacing=Pacing.of(self._config, time.monotonic(), keep_alive_interval),
        )


def _checked(source: Any) -> str | redis.asyncio.Redis | None:
    if isinstance(source, str):
        check_url(source)
    if source is None or isinstance(source, str | redis.asyncio.Redis):
        return source
    if isinstance(source, redis.Redis):
        raise TypeError(
            "AsyncStreamManager takes a redis.asyncio.Redis; for a redis.Redis use StreamManager"
        )
    raise TypeError(f"redis must be a URL or a redis.asyncio.Redis, not {type(source).__name__}")
