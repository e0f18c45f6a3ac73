"""StreamManager: streams for Flask, Celery, RQ and scripts."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import redis
import redis.asyncio

from ..adapters.flask_apps import NOTHING, FlaskApps, Named
from ..adapters.frameworks import import_adapter, refuse_in_asgi
from ..config import (
    LARGEST_BATCH_BYTES,
    LARGEST_BATCH_EVENTS,
    MOST_WITNESSES,
    READ_TIMEOUT,
    WRITER_INTERVAL,
    StreamConfig,
    check_duration,
    checked_config,
    with_settings,
)
from ..connections import check_url, pool, url_from_environment
from ..core.batch import move_result
from ..core.event import encode_end, encode_event, encode_events, validate_event_name
from ..core.headers import stream_headers
from ..core.history import StreamInfo
from ..core.publication import Position
from ..core.replay import Replay, validate_replay
from ..core.stats import StreamStats
from ..core.subscriber import Pacing
from ..core.witness import Witnesses
from ..exceptions import InvalidEvent
from ..jsonable import to_json
from ..keys import validate_idempotency_key, validate_stream_id
from ..servers.watch import make_room
from ..tally import Tally
from .coalescing import Writer
from .flusher import Flusher
from .listener import Listener
from .pipelines import Pipelines
from .publisher import Publisher
from .stream import Stream
from .subscription import Subscription
from .wakeup import do_elsewhere

if TYPE_CHECKING:
    from flask import Flask, Response

__all__ = ["StreamManager"]

_EXTENSION = "streamy_redis"


class StreamManager:
    """Sends to streams, and serves them to browsers, through Redis. For threads and gevent.

    ::

        streams = StreamManager()

        @app.get("/stream/<room>")
        def stream(room):
            return streams.get_stream(room)

        streams.send_event("room", {"hello": "world"})

    Nothing is connected or started before first use. One manager may be shared by all threads
    and greenlets of a process, and by the processes forked from it: each makes its own
    connections. One that is dropped without ``close`` closes by itself, once nobody reads.

    Args:
        redis: a URL, a ``redis.Redis``, or None for the app's ``STREAMY_REDIS_URL``, the
            environment's ``STREAMY_REDIS_URL`` or ``REDIS_URL``, or ``redis://localhost:6379/0``.
            ``memory://`` is a store inside this process, for development and tests.
        app: a Flask app, as for ``init_app``.
        config: how streams are kept and delivered; None for ``StreamConfig.from_env()``, with
            the app's settings over it.

    Raises:
        ValueError: redis, or what is asked in its place, is no URL of a Redis, or has a setting
            that can't work.
        TypeError: redis is of another kind, such as an asyncio client.
        ValueError: a ``STREAMY_`` variable or a setting of the app isn't valid.
    """

    def __init__(
        self,
        redis: str | redis.Redis | None = None,
        *,
        app: Flask | None = None,
        config: StreamConfig | None = None,
    ) -> None:
        self._source = _checked(redis)
        self._given_config = config
        checked_config(config)
        self._apps = FlaskApps()
        # What the last app that named anything named, as long as the manager isn't closed.
        self._named = NOTHING
        # From the first use on, until apps name another one.
        self._settled_config: StreamConfig | None = None
        # By identity. Nobody need close one that is given up.
        self._writers: weakref.WeakValueDictionary[int, Writer] = weakref.WeakValueDictionary()
        # By process id, since a fork inherits everything but the threads.
        self._processes: dict[int, _Process] = {}
        # What was acknowledged, by the Redis and the prefix: it outlives what a process has open.
        self._remembered: dict[tuple[object, str], Witnesses] = {}
        self._tally = Tally()
        import_adapter("flask")
        if app is not None:
            self.init_app(app)
        if self._source is None and self._named.url is None:
            check_url(url_from_environment())
        # Nobody need close it. At exit the threads end by themselves.
        weakref.finalize(self, _give_up, self._processes).atexit = False
        # What closing goes back to.
        self._named_first = self._named
        self._app_first = app

    def init_app(self, app: Flask) -> None:
        """Reads the ``STREAMY_*`` settings of a Flask app, and makes the manager its extension.

        ``STREAMY_REDIS_URL`` names the Redis, unless the manager was given one; the other
        settings are the fields of StreamConfig in capitals and override its values. One manager
        serves several apps that share its Redis: those that name the same, and, while it is at
        work for another, those that name nothing. A factory may call this for each new app, with
        other settings or none too, while no response, subscription or writer is open: what the new
        app names takes the place of what others did. ``close`` forgets what apps named.

        Raises:
            RuntimeError: streams are open, on another Redis or with other settings than the app
                names. An earlier app that named others raises it in its context, when it is used.
            ValueError, TypeError: a setting that isn't valid.
        """
        base = self._own_config()
        config = with_settings(base, app.config)
        url = _url_of(app)
        named = Named(
            url=url if self._source is None else None,
            config=None if config is base else config,
        )
        self._adopt(named)
        self._apps.add(app, named)
        app.extensions[_EXTENSION] = self

    def _own_config(self) -> StreamConfig:
        return self._given_config or StreamConfig.from_env()

    def _adopt(self, named: Named) -> None:
        """What an app names holds from now on."""
        if named == self._named:
            return
        if not self._has_open:
            self._close_process()
            self._named = named
            self._settled_config = None
        elif named != NOTHING:
            raise RuntimeError(
                "the StreamManager has streams open on another Redis or with other STREAMY_ "
                "settings than the app names; give the app a manager of its own, or close() first"
            )

    @property
    def _has_open(self) -> bool:
        """Whether this process has responses, subscriptions or writers open."""
        process = self._processes.get(os.getpid())
        if process is not None and process.listener.has_subscribers:
            return True
        # One call that no other thread can split.
        writers = [reference() for reference in self._writers.valuerefs()]
        return any(writer is not None and writer.is_open for writer in writers)

    def _follow_app(self) -> None:
        """The app whose context is active may not be the one that was initialised last."""
        named = self._apps.named_here()
        if named is None or named == self._named:
            return
        if os.getpid() not in self._processes:
            self._adopt(named)
        elif named != NOTHING:
            raise RuntimeError(
                "this app names another Redis or other STREAMY_ settings than another app, which "
                "the StreamManager works for now; give each app a manager of its own"
            )

    @property
    def _config(self) -> StreamConfig:
        self._follow_app()
        config = self._settled_config
        if config is None:
            config = self._settled_config = self._named.config or self._own_config()
        return config

    def _to_json(self, value: Any) -> str | bytes:
        encoder = self._config.json_encoder
        return self._apps.to_json(value) if encoder is to_json else encoder(value)

    # Sending

    def send_event(
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
            data, event_name, retry, max_size=config.max_event_size, to_json=self._to_json
        )
        key = validate_idempotency_key(idempotency_key)
        return self._process.publisher.send(stream_id, [block], key)[0]

    def send_events(
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
            to_json=self._to_json,
        )
        key = validate_idempotency_key(idempotency_key)
        return self._process.publisher.send(stream_id, blocks, key) if blocks else []

    def end_stream(self, stream_id: str, data: Any = None) -> bool:
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
        block = encode_end(data, max_size=config.max_event_size, to_json=self._to_json)
        return self._process.publisher.end(stream_id, block)

    def writer(self, stream_id: str, interval: float = WRITER_INTERVAL) -> Writer:
        """Writes text piece by piece, such as a model's tokens: a context manager.

        What is written within interval seconds goes in one event, whose data is the joined text.
        Leaving the block sends the rest and ends the stream, with data that says why:
        ``{"reason": "done"}``, ``{"reason": "failed", "error": "ValueError"}`` when the block
        raised, ``{"reason": "cancelled"}`` when it was interrupted. See ``Writer`` for
        what happens while Redis is away.

        A page that opens with ``replay="all"`` shows the whole text as long as it is in the
        history: at 0.03 s that are up to 33 of its ``history_length`` events a second.

        Args:
            stream_id: as in ``send_event``.
            interval: seconds, at least 0.001.

        Returns:
            A ``Writer``, with ``write(text, event_name=None)``, ``flush()`` and
            ``close(data)``.

        Raises:
            InvalidEvent, ValueError, TypeError: an argument breaks a rule.
        """
        validate_stream_id(stream_id)
        check_duration("interval", interval)
        writer = Writer(
            lambda: self._process.publisher,
            lambda: self._process.flusher,
            dataclasses.replace(self._config, json_encoder=self._to_json),
            stream_id,
            interval,
        )
        self._writers[id(writer)] = writer
        return writer

    def delete_stream(self, stream_id: str) -> bool:
        """Forgets a stream's history and end, so that its id can be used anew (UNLINK).

        Open responses stay open, and get a reset before anything newer.

        Returns:
            True if there was one.

        Raises:
            InvalidEvent: the stream id breaks a rule.
            RedisUnavailable: as ``send_event``. Repeating it is safe.
        """
        return self._process.publisher.delete(validate_stream_id(stream_id))

    def info(self, stream_id: str) -> StreamInfo:
        """What Redis holds of the stream, in one look (XINFO STREAM, PTTL).

        Its ``last_event_id`` is a cursor to render into a page, for ``get_stream``.

        Raises:
            InvalidEvent: the stream id breaks a rule.
            RedisUnavailable: Redis can't be reached within ``send_timeout``, or refuses.
        """
        return self._process.publisher.info(validate_stream_id(stream_id))

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
        """A Flask response that is the stream, for a view to return.

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
            RuntimeError: an ASGI endpoint asks: use AsyncStreamManager.
        """
        refuse_in_asgi()
        make_room()
        try:
            from ..adapters.flask import new_response, refuse_stream_id
        except ModuleNotFoundError as exc:
            message = "get_stream() needs an extra: pip install 'streamy-redis[flask]'"
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

        def new_stream(cursor_of_request: Position | None, shows_end: bool) -> Stream:
            cursor = cursor_of_request or Position.parse(last_event_id)
            return self._process.new_stream(
                stream_id,
                # Who comes anew is shown the end, and nothing else.
                cursor=None if shows_end else cursor,
                replay=0 if shows_end else replay,
                event_name=name,
                keep_alive_interval=keep_alive_interval,
            )

        return new_response(new_stream, fields)

    def subscribe(
        self,
        stream_id: str,
        *,
        last_event_id: str | None = None,
        replay: Replay = 0,
        timeout: float | None = None,
    ) -> Subscription:
        """The stream's events inside this process: a context manager to iterate.

        Nothing happens before it is entered. See ``Subscription`` for what it does then.

        Args:
            stream_id: as in ``send_event``.
            last_event_id: the id of an event, after which to begin; it wins over replay.
            replay: without one: 0 from now on, n the newest n events, "all" the whole history.
            timeout: seconds without an event after which iterating raises TimeoutError; it may
                be gone on with. None waits for as long as it takes.

        Returns:
            A ``Subscription``, which yields ``ReceivedEvent``.

        Raises:
            InvalidEvent, ValueError, TypeError: an argument breaks a rule.
        """
        if timeout is not None:
            check_duration("timeout", timeout)
        return Subscription(
            lambda: self._process.listener,
            self._config,
            validate_stream_id(stream_id),
            cursor=Position.parse(last_event_id),
            replay=validate_replay(replay),
            timeout=timeout,
        )

    # Watching

    def stats(self) -> StreamStats:
        """What this process has counted of this manager's streams, from its first use on.

        Any thread may ask at any time: it neither waits, nor connects, nor starts anything. Before
        first use all is zero; after ``close`` the counts stay.
        """
        return self._tally.stats()

    # Life

    def close(self) -> None:
        """Ends this process's responses and subscriptions, and closes its connections.

        Repeating it is harmless; a manager that is used again starts anew. What apps named is
        forgotten, unless the manager was made with the app.
        """
        self._close_process()
        # Whoever holds one still is not waited for.
        self._writers.clear()
        self._named = self._named_first
        self._settled_config = None
        self._apps.go_back_to(self._app_first)

    def _close_process(self) -> None:
        processes: list[_Process] = []
        try:
            move_result(functools.partial(self._processes.pop, os.getpid(), None), processes)
            for process in processes:
                process.close()
        except BaseException:
            for process in processes:
                # Who is interrupted leaves nothing open.
                do_elsewhere("close", process.close)
            raise

    def __enter__(self) -> StreamManager:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _process(self) -> _Process:
        self._follow_app()
        pid = os.getpid()
        process = self._processes.get(pid)
        if process is None:
            for inherited in [each for each in list(self._processes) if each != pid]:
                # Where a fork was made without Python's hooks, it has not been done yet.
                self._processes.pop(inherited).listener.abandon()
            source = self._source or self._named.url or url_from_environment()
            place = (source, self._config.prefix)
            new = _Process(source, self._config, self._tally, self._remembered.get(place))
            # One call that no other thread can split: the first to come wins.
            process = self._processes.setdefault(pid, new)
            self._remembered = {place: process.witnesses}
        return process


def _give_up(processes: dict[int, _Process]) -> None:
    """Nobody refers to a manager any more."""
    process = processes.get(os.getpid())
    if process is not None:
        process.listener.give_up(process.close)


class _Process:
    """What one process has of a manager."""

    def __init__(
        self,
        source: str | redis.Redis,
        config: StreamConfig,
        tally: Tally,
        inherited: Witnesses | None,
    ) -> None:
        self._config = config
        self.witnesses = Witnesses(MOST_WITNESSES, inherited=inherited)
        # A slow send must not hold up readers, nor their timeout be the senders'.
        self._senders = Pipelines(source, config)
        self._readers = pool(source, connections=1, timeout=READ_TIMEOUT)
        self.publisher = Publisher(self._senders, config, self.witnesses)
        self.listener = Listener(self._readers, config, tally, self.witnesses)
        self.flusher = Flusher()

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

    def close(self) -> None:
        self.flusher.close()
        self.listener.close()
        self._senders.close()
        self._readers.disconnect()


def _url_of(app: Flask) -> str | None:
    url = app.config.get("STREAMY_REDIS_URL")
    if url is None or url == "":
        return None
    if not isinstance(url, str):
        raise TypeError(f"STREAMY_REDIS_URL must be a str, not {type(url).__name__}")
    check_url(url)
    return url


def _checked(source: Any) -> str | redis.Redis | None:
    if isinstance(source, redis.asyncio.Redis):
        raise TypeError(
            "StreamManager takes a redis.Redis; for a redis.asyncio.Redis use AsyncStreamManager"
        )
    if isinstance(source, str):
        check_url(source)
    if source is None or isinstance(source, str | redis.Redis):
        return source
    raise TypeError(f"redis must be a URL or a redis.Redis, not {type(source).__name__}")
