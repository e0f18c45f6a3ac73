"""Connections to Redis: own pools, made from a URL or from the caller's client.

Every setting that decides how a command fails is ours, since redis-py's defaults repeat commands
whose reply was lost, and differ between ``Redis()`` and ``from_url()``.
"""

from __future__ import annotations

import functools
import inspect
import logging
import multiprocessing
import os
import re
import socket
import struct
import sys
import warnings
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

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
    "async_listener_connection",
    "async_pool",
    "is_passing",
    "listener_connection",
    "pool",
    "refusal",
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
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    OSError,
)
_PASSING_CODES = re.compile(
    r"\b(BUSY|OOM|MISCONF|READONLY|NOREPLICAS)\b|max number of clients reached"
)

_log = logging.getLogger("streamy_redis.connections")


class Busy(redis.RedisError):
    """Raised when a command could not even be sent in time."""


class Interrupted(redis.RedisError):
    """Raised when somebody else sent a command, and was interrupted: it may be carried out."""


def url_from_environment(default: str = DEFAULT_URL) -> str:
    """The Redis URL where neither argument nor app names one."""
    return os.environ.get("STREAMY_REDIS_URL") or os.environ.get("REDIS_URL") or default


def pool(source: str | redis.Redis, *, connections: int, timeout: float) -> redis.ConnectionPool:
    """A pool of a manager's own, for threads.

    Args:
        source: a URL, or a client whose connection settings are taken over.
        connections: how many it may hold.
        timeout: seconds that a command may wait, on a connection at hand or a new one.
    """
    given = _pool_of(source)
    return redis.ConnectionPool(
        given.connection_class,
        max_connections=connections,
        **_settings(given.connection_kwargs, timeout),
        redis_connect_func=_Greeting(given.connection_kwargs.get("redis_connect_func")),
        retry=redis.retry.Retry(NoBackoff(), 0),
    )


def async_pool(
    source: str | redis.asyncio.Redis, *, connections: int, timeout: float
) -> redis.asyncio.ConnectionPool:
    """A pool of a manager's own, for one event loop."""
    given = _async_pool_of(source)
    return redis.asyncio.ConnectionPool(
        given.connection_class,
        max_connections=connections,
        **_settings(given.connection_kwargs, timeout),
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
    """The error, without what Redis repeats of a command it doesn't know: that holds the data."""
    error.args = tuple(str(arg).partition(", with args beginning with")[0] for arg in error.args)
    return error


def refusal(action: str, key: str, error: Exception) -> str:
    """What a person reads when Redis couldn't be reached or refused."""
    return f"could not {action} (key {key!r}): {str(error) or 'no answer in time'}"


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
        _check_url(source)
        if source == MEMORY_URL:
            memory: redis.Redis = _fakeredis().FakeRedis(server=_memory())
            return memory.connection_pool
        return redis.ConnectionPool.from_url(source)
    _check_pool(source.connection_pool)
    return source.connection_pool


def _async_pool_of(source: str | redis.asyncio.Redis) -> redis.asyncio.ConnectionPool:
    if isinstance(source, str):
        _check_url(source)
        if source == MEMORY_URL:
            memory: redis.asyncio.Redis = _fakeredis().FakeAsyncRedis(server=_memory())
            return memory.connection_pool
        return redis.asyncio.ConnectionPool.from_url(source)
    _check_pool(source.connection_pool)
    return source.connection_pool


def _check_url(url: str) -> None:
    if url != MEMORY_URL and not url.startswith(_SCHEMES):
        # Not the URL itself: it may hold a password.
        raise ValueError(f"the Redis URL must begin with {', '.join(_SCHEMES)} or be {MEMORY_URL}")


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
