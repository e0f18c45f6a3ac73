"""Connections to Redis: own pools, made from a URL or from the caller's client.

Every setting that decides how a command fails is ours, since redis-py's defaults repeat commands
whose reply was lost, and differ between ``Redis()`` and ``from_url()``.
"""

from __future__ import annotations

import functools
import inspect
import logging
import math
import multiprocessing
import os
import re
import socket
import struct
import sys
import time
import urllib.parse
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio
from redis.backoff import NoBackoff

from .config import READ_TIMEOUT
from .forks import do_in_each_fork

if TYPE_CHECKING:
    from fakeredis import FakeServer

__all__ = [
    "DEFAULT_URL",
    "MEMORY_URL",
    "Busy",
    "Interrupted",
    "Shared",
    "WrongSetting",
    "async_listener_connection",
    "async_pool",
    "async_sender_connection",
    "check_url",
    "explained",
    "is_lasting",
    "is_passing",
    "listener_connection",
    "pool",
    "refusal",
    "sender_connection",
    "url_from_environment",
    "without_arguments",
]

DEFAULT_URL = "redis://localhost:6379/0"
MEMORY_URL = "memory://"

_SCHEMES = ("redis://", "rediss://", "unix://")
# Settings of a caller's pool that belong to that pool.
_NOT_OURS = re.compile(
    r"redis_connect_func|retry.*|maint_.*|maintenance_.*|orig_.*|himport_.*|event_dispatcher|cache.*"
)
# Errors that pass by themselves; any other reply of the server stays until somebody acts. For
# some redis-py has a class, and cuts the code off; for others, and inside a script, it has none.
_PASSING_ERRORS = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.InvalidResponse,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.MasterDownError,
    OSError,
)
_PASSING_CODES = re.compile(
    r"\b(BUSY|OOM|MISCONF|READONLY|NOREPLICAS)\b|max number of clients reached"
)
# Answers of a node of a cluster: newer redis-py has classes for them, and cuts their codes off.
# MovedError is an AskError.
_OF_A_CLUSTER: dict[type[Exception], str] = {
    redis.exceptions.MovedError: "MOVED ",
    redis.exceptions.AskError: "ASK ",
    redis.exceptions.ClusterCrossSlotError: "CROSSSLOT ",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN ",
    redis.exceptions.TryAgainError: "TRYAGAIN ",
}
# A Sentinel knows few commands, and none of these.
_NO_SCRIPTS = re.compile(r"unknown command\W+(EVAL|EVALSHA|UNLINK|SELECT)\b", re.IGNORECASE)
# What a server of another kind is, and what to use in its place.
_CLUSTER = "this is a node of a Redis Cluster, which isn't supported: name a Redis outside of one"
_SENTINEL = (
    "if this is the port of a Sentinel: Sentinels aren't asked for the master, name the Redis "
    "itself; streams need its scripts"
)
_REPLICA = "this is a replica, which can't be sent to: name its master"

_log = logging.getLogger("streamy_redis.connections")

Pool = TypeVar("Pool")


class Busy(redis.RedisError):
    """Raised when a command could not even be sent in time."""


class Interrupted(redis.RedisError):
    """Raised when somebody else sent a command, and was interrupted: it may be carried out."""


class Shared(redis.RedisError):
    """Raised when a command failed with all that went together with it.

    Args:
        error: what came of all of them.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class WrongSetting(redis.RedisError):
    """Raised when a setting allows no connection, whoever may be at the other end."""


def url_from_environment(default: str = DEFAULT_URL) -> str:
    """The Redis URL where neither argument nor app names one."""
    return os.environ.get("STREAMY_REDIS_URL") or os.environ.get("REDIS_URL") or default


def pool(source: str | redis.Redis, *, connections: int, timeout: float) -> redis.ConnectionPool:
    """A pool of a manager's own, for threads.

    Args:
        source: a URL, or a client whose connection settings are taken over.
        connections: how many it may hold.
        timeout: seconds that a command may wait, on a connection at hand or a new one.

    With a setting that can never work each attempt to connect raises WrongSetting.
    """
    try:
        given = _pool_of(source)
        settings = _settings(given.connection_kwargs, timeout)
        _check_settings(given.connection_class, settings)
    except WrongSetting as exc:
        return redis.ConnectionPool(_NeverConnected, max_connections=connections, reason=str(exc))
    return redis.ConnectionPool(
        _checking(given.connection_class),
        max_connections=connections,
        **settings,
        redis_connect_func=_Greeting(given.connection_kwargs.get("redis_connect_func")),
        retry=redis.retry.Retry(NoBackoff(), 0),
    )


def async_pool(
    source: str | redis.asyncio.Redis, *, connections: int, timeout: float
) -> redis.asyncio.ConnectionPool:
    """A pool of a manager's own, for one event loop."""
    try:
        given = _async_pool_of(source)
        settings = _settings(given.connection_kwargs, timeout)
        _check_settings(given.connection_class, settings)
    except WrongSetting as exc:
        return redis.asyncio.ConnectionPool(
            _AsyncNeverConnected, max_connections=connections, reason=str(exc)
        )
    return redis.asyncio.ConnectionPool(
        _async_checking(given.connection_class),  # type: ignore[arg-type]
        max_connections=connections,
        **settings,
        redis_connect_func=_async_greeting(given.connection_kwargs.get("redis_connect_func")),
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
    )


class _Greeting:
    """What is done first on a new connection: the caller's greeting, or redis-py's."""

    def __init__(self, own: Callable[[Any], object] | None) -> None:
        self._own = own

    def __call__(self, connection: Any) -> None:
        _linger(connection)
        if self._own is not None:
            self._own(connection)
        else:
            connection.on_connect()


def _async_greeting(own: Callable[[Any], Any] | None) -> Callable[[Any], Awaitable[None]]:
    async def greet(connection: Any) -> None:
        _linger(connection)
        greeting = own(connection) if own is not None else connection.on_connect()
        if inspect.isawaitable(greeting):
            await greeting

    return greet


def sender_connection(pool: redis.ConnectionPool) -> Any:
    """A connection beside the pool, for commands. It is not connected yet.

    It has a ``deadline`` on the clock of time.monotonic(), by which all has to be sent and
    answered.
    """
    return _made(pool.connection_class, pool.connection_kwargs)


def async_sender_connection(pool: redis.asyncio.ConnectionPool) -> Any:
    """The same for asyncio, where who uses it has a deadline."""
    return pool.connection_class(**pool.connection_kwargs)


def listener_connection(pool: redis.ConnectionPool) -> redis.Connection:
    """A connection beside the pool, for Pub/Sub. It is not connected yet."""
    settings = pool.connection_kwargs | {"socket_timeout": READ_TIMEOUT}
    connection: redis.Connection = pool.connection_class(**settings)
    return connection


def async_listener_connection(
    pool: redis.asyncio.ConnectionPool,
) -> redis.asyncio.connection.AbstractConnection:
    """The same for asyncio. Its reads wait without limit: the listener watches for silence."""
    settings = pool.connection_kwargs | {"socket_timeout": None}
    return pool.connection_class(**settings)


def _linger(connection: Any) -> None:
    """Lets a connection that is given up drop what it has not sent (SO_LINGER, 0 seconds).

    Else the kernel would go on sending a try that timed out, and Redis might carry it out after
    the retry.
    """
    connected: Any = getattr(connection, "_sock", None)
    writer: Any = getattr(connection, "_writer", None)
    if connected is None and hasattr(writer, "get_extra_info"):
        connected = writer.get_extra_info("socket")
    # memory:// has neither.
    if hasattr(connected, "setsockopt"):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def is_passing(error: Exception) -> bool:
    """Whether trying again can help: Redis is away, busy, full or starting."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return False
    return isinstance(error, _PASSING_ERRORS) or bool(_PASSING_CODES.search(str(error)))


def without_arguments(error: Exception) -> Exception:
    """The error, without what Redis repeats of a command it doesn't know: data, or a password."""
    error.args = tuple(_without_arguments(str(arg)) for arg in error.args)
    return error


def _without_arguments(said: str) -> str:
    return said.partition(", with args beginning with")[0]


def is_lasting(error: Exception | None) -> bool:
    """Whether nothing but another URL or setting can help, however long one waits."""
    return (
        isinstance(error, WrongSetting)
        or _cluster_code(error) is not None
        or _NO_SCRIPTS.search(str(error)) is not None
    )


def explained(error: Exception | None) -> str:
    """What a person reads of an error: what Redis said, and what to do if it is of a wrong kind."""
    said = _without_arguments(str(error or "")) or "Redis did not answer in time"
    code = _cluster_code(error)
    if code is not None:
        return f"{code}{said.removeprefix(code)}: {_CLUSTER}"
    if isinstance(error, redis.exceptions.ReadOnlyError):
        return f"{said.removesuffix('.')}: {_REPLICA}"
    return f"{said}: {_SENTINEL}" if _NO_SCRIPTS.search(said) else said


def _cluster_code(error: Exception | None) -> str | None:
    """With which code a node of a cluster answers; None if it is something else."""
    if not isinstance(error, redis.ResponseError):
        return None
    for kind, code in _OF_A_CLUSTER.items():
        if isinstance(error, kind) or str(error).startswith(code):
            return code
    return None


def refusal(action: str, key: str, error: Exception) -> str:
    """What a person reads when Redis couldn't be reached or refused."""
    return f"could not {action} (key {key!r}): {explained(error)}"


def _settings(given: Mapping[str, Any], timeout: float) -> dict[str, Any]:
    kept = {name: value for name, value in given.items() if not _NOT_OURS.fullmatch(name)}
    return kept | {
        # Payloads are bytes, whatever the caller's client decodes for itself.
        "decode_responses": False,
        "encoding": "utf-8",
        "encoding_errors": "strict",
        # Without pushes of RESP3 every reply is the answer to a command of ours or a message.
        "protocol": 2,
        "health_check_interval": 0,
        # Where connecting and the first reply both take all they may, little more than timeout.
        "socket_timeout": timeout * 0.7,
        "socket_connect_timeout": timeout * 0.4,
    }


def _pool_of(source: str | redis.Redis) -> redis.ConnectionPool:
    if isinstance(source, str):
        if source == MEMORY_URL:
            memory: redis.Redis = _fakeredis().FakeRedis(server=_memory())
            return memory.connection_pool
        return _from_url(redis.ConnectionPool, source)
    _check_pool(source.connection_pool)
    return source.connection_pool


def _async_pool_of(source: str | redis.asyncio.Redis) -> redis.asyncio.ConnectionPool:
    if isinstance(source, str):
        if source == MEMORY_URL:
            memory: redis.asyncio.Redis = _fakeredis().FakeAsyncRedis(server=_memory())
            return memory.connection_pool
        return _from_url(redis.asyncio.ConnectionPool, source)
    _check_pool(source.connection_pool)
    return source.connection_pool


def check_url(url: str) -> None:
    """Raises unless the URL can be one of a Redis, as far as that is known without connecting.

    Raises:
        ValueError: names the setting, but never shows the URL, which may hold a password.
    """
    if url == MEMORY_URL:
        return
    try:
        given = _from_url(redis.ConnectionPool, url)
        _check_arguments(given.connection_class, _settings(given.connection_kwargs, 1.0))
    except WrongSetting as exc:
        raise ValueError(str(exc)) from None


def _from_url(kind: type[Pool], url: str) -> Pool:
    _check_form(url)
    try:
        return kind.from_url(url)  # type: ignore[attr-defined, no-any-return]
    except (ValueError, TypeError) as exc:
        # It names the argument: those of a URL have to be of a type.
        raise WrongSetting(f"the Redis URL can't work: {exc}") from exc


def _check_form(url: str) -> None:
    """What redis-py and urllib take for something else, or strip."""
    if not url.startswith(_SCHEMES):
        known = ", ".join(_SCHEMES)
        raise WrongSetting(f"the Redis URL must begin with {known} or be {MEMORY_URL}")
    if not url.isprintable() or url.endswith(" "):
        raise WrongSetting(
            "the Redis URL holds a line break, another control character, or a blank at its end: "
            "what it was read from may end with one"
        )
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018
    except ValueError:
        parts = None
    if parts is None or parts.fragment or _has_torn_password(parts):
        raise WrongSetting(
            "the Redis URL has no valid port, or a password that isn't encoded: in a password, a "
            "user's name and an argument everything but letters and digits is percent-encoded, "
            "%40 for @ and %2F for /, as urllib.parse.quote(password, safe='') does it"
        )
    if parts.scheme == "unix":
        if parts.hostname or not parts.path:
            raise WrongSetting("the Redis URL names no socket: its path, as unix:///run/redis.sock")
        return
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise WrongSetting("the database in the Redis URL, behind its last /, must be a number")


def _has_torn_password(parts: urllib.parse.SplitResult) -> bool:
    """Whether what stands behind host and port holds the @ that should stand before them.

    A password with a / or ? in it ends them too early: then part of it is taken for a host, or for
    an argument's name, which messages show.
    """
    # Without a host, all of unix:///path is the path.
    behind = f"{parts.path if parts.netloc else ''}?{parts.query}"
    return "@" in behind


def _check_settings(kind: type, settings: dict[str, Any]) -> None:
    _check_arguments(kind, settings)
    for name, look in _FILES.items():
        if settings.get(name) and not look(settings[name]):
            raise WrongSetting(f"{name} of the Redis connection: there is no {settings[name]!r}")


def _check_arguments(kind: type, settings: dict[str, Any]) -> None:
    """Makes a connection, which is not connected: redis-py looks at what it is given."""
    error = _refused(kind, settings)
    if error is None:
        return
    wrong = [name for name in settings if _refused(kind, _without(settings, name)) is None]
    name = wrong[0] if wrong else "settings"
    reason = "there is no such setting" if isinstance(error, TypeError) and wrong else str(error)
    raise WrongSetting(f"{name} of the Redis connection can't work: {reason}{_advice(name)}")


def _made(kind: type, settings: Mapping[str, Any]) -> Any:
    """A connection, which is not connected."""
    try:
        return kind(**settings)
    except UnboundLocalError as exc:
        # Of a `finally` of redis-py's, if an exception was thrown into our thread before it.
        raise exc.__context__ or exc from None


def _refused(kind: type, settings: Mapping[str, Any]) -> Exception | None:
    try:
        _made(kind, settings)
    except TimeoutError:
        # Nothing is waited for: a time limit of the caller's was thrown in.
        raise
    except (redis.RedisError, ValueError, TypeError, AttributeError, OSError) as exc:
        return exc
    return None


def _without(settings: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != left_out}


def _advice(name: str) -> str:
    if name == "ssl_cert_reqs":
        return "; redis-py knows none, optional and required"
    if name.startswith("ssl"):
        return "; TLS is a URL that begins with rediss://"
    return ""


# Settings that name files and folders, which may come later than the manager.
_FILES = {
    "ssl_ca_certs": os.path.isfile,
    "ssl_certfile": os.path.isfile,
    "ssl_keyfile": os.path.isfile,
    "ssl_ca_path": os.path.isdir,
}
# What redis-py raises at connecting where a setting is of a type that it didn't expect.
_MISUSES = (TypeError, ValueError, AttributeError)


class _NeverConnected(redis.Connection):
    """What there is of a connection whose settings are known to be wrong."""

    def __init__(self, *, reason: str, **settings: object) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._reason = reason

    def connect(self, *args: Any, **options: Any) -> None:
        raise WrongSetting(self._reason)


class _AsyncNeverConnected(redis.asyncio.Connection):
    """The same for asyncio."""

    def __init__(self, *, reason: str, **settings: object) -> None:
        super().__init__()
        self._reason = reason

    async def connect(self, *args: Any, **options: Any) -> None:
        raise WrongSetting(self._reason)


@functools.cache
def _checking(kind: Any) -> Any:
    """The class of connection, with one error for what redis-py finds only at connecting."""

    class Checking(kind):  # type: ignore[misc]
        # When all of it has to be sent and answered; redis-py only limits each write and read.
        deadline: float | None = None

        def connect(self, *args: Any, **options: Any) -> None:
            handled = sys.exception()
            soonest = time.monotonic() + (self.socket_connect_timeout or 0.0)
            try:
                super().connect(*args, **options)
            except redis.RedisError as exc:
                _let_through(exc, handled, self.deadline and min(soonest, self.deadline))
                raise
            except _MISUSES as exc:
                self.disconnect()
                raise WrongSetting(f"a setting of the Redis connection can't work: {exc}") from exc

        def can_read(self, *args: Any, **options: Any) -> bool:
            handled = sys.exception()
            try:
                return bool(super().can_read(*args, **options))
            except redis.RedisError as exc:
                _let_through(exc, handled, self.deadline and math.inf)
                raise

        def send_packed_command(self, *args: Any, **options: Any) -> None:
            handled = sys.exception()
            self._limit()
            try:
                super().send_packed_command(*args, **options)
            except redis.RedisError as exc:
                _let_through(exc, handled, self.deadline)
                raise

        def read_response(self, *args: Any, **options: Any) -> Any:
            handled = sys.exception()
            self._limit()
            try:
                return super().read_response(*args, **options)
            except redis.RedisError as exc:
                _let_through(exc, handled, self.deadline)
                raise

        def _limit(self) -> None:
            if self.deadline is None:
                return
            left = self.deadline - time.monotonic()
            if left <= 0:
                self.disconnect()
                raise redis.TimeoutError("Redis did not answer in time")
            connected: Any = getattr(self, "_sock", None)
            # memory:// has nothing to wait for.
            if hasattr(connected, "settimeout"):
                connected.settimeout(left)

    return Checking


def _let_through(
    error: redis.RedisError, handled: BaseException | None, soonest: float | None
) -> None:
    """Raises a time limit of the caller's: a TimeoutError, which redis-py takes for its own.

    Args:
        handled: what the caller was handling when the call began, which may be one as well.
        soonest: when one of redis-py's may come; None where nobody limits our thread.
    """
    thrown = _thrown_in(error, handled)
    if thrown is not None and soonest is not None and time.monotonic() < soonest:
        raise thrown from None


def _thrown_in(error: BaseException | None, handled: BaseException | None) -> TimeoutError | None:
    """The first that was raised: redis-py 5 to 7 makes another of it on hiredis."""
    first = None
    while error is not None and error is not handled:
        # With a number it is the network's (ETIMEDOUT).
        if isinstance(error, TimeoutError) and error.errno is None:
            first = error
        error = error.__context__
    return first


@functools.cache
def _async_checking(kind: Any) -> Any:
    class Checking(kind):  # type: ignore[misc]
        # How often it was given up.
        cuts = 0

        async def connect(self, *args: Any, **options: Any) -> None:
            cuts = self.cuts
            try:
                await super().connect(*args, **options)
            except _MISUSES as exc:
                if self.cuts != cuts:
                    raise redis.ConnectionError("cut while connecting") from exc
                await self.disconnect(nowait=True)
                raise WrongSetting(f"a setting of the Redis connection can't work: {exc}") from exc

        async def disconnect(self, *args: Any, **options: Any) -> None:
            self.cuts += 1
            transport: Any = getattr(getattr(self, "_writer", None), "transport", None)
            try:
                await super().disconnect(*args, **options)
            finally:
                # TLS waits for the other side's goodbye, longer than an event loop may live. None
                # without a connection, and memory:// has nothing to abort.
                if hasattr(transport, "abort"):
                    transport.abort()

    return Checking


def _check_pool(pool: object) -> None:
    if type(pool).__name__ == "SentinelConnectionPool":
        raise TypeError("clients from Sentinel are not supported yet; pass a URL or a plain Redis")


def _fakeredis() -> Any:
    try:
        import fakeredis
        import lupa  # noqa: F401  # what fakeredis runs scripts with
    except ImportError as exc:
        raise ImportError("memory:// needs the extra: pip install 'streamy-redis[memory]'") from exc
    return fakeredis


@functools.cache
def _memory() -> FakeServer:
    """The one embedded store of this process."""
    _warn_of_many_processes()
    do_in_each_fork(_warn_of_fork)
    server: FakeServer = _fakeredis().FakeServer()
    return server


def _warn_of_many_processes() -> None:
    if multiprocessing.parent_process() is not None or _is_server_worker():
        warnings.warn(
            "memory:// is a store inside this process: other workers and jobs don't see its "
            "streams. Use a Redis URL for more than one process.",
            RuntimeWarning,
            stacklevel=2,
        )


def _is_server_worker() -> bool:
    """Whether gunicorn or Celery loaded us; both run workers of their own."""
    return any(name in sys.modules for name in ("gunicorn.arbiter", "celery.app.trace"))


def _warn_of_fork() -> None:
    # Logged, not warned: a warning turned into an error would be lost in the fork hook.
    _log.warning(
        "memory:// was forked: this process has a copy of the store that no other one sees"
    )
