"""The Redis server: whether it answers, suits, allows, and how fast events pass through it."""

from __future__ import annotations

import contextlib
import queue
import secrets
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import redis

from ..config import StreamConfig
from ..connections import WrongSetting, listener_connection, pool, without_arguments
from ..exceptions import StreamyError
from ..sync.manager import StreamManager
from .finding import Finding, Level, note, ok, problem
from .permissions import ask, examine_permissions, grant, missing_permission

__all__ = ["address", "examine_redis", "spread"]

# Seconds that Redis may take to answer; who takes longer holds every page up.
_TIMEOUT = 3.0
# Seconds that an event may take from send to receive before somebody should know.
_SLOW = 0.1
_ROUNDS = 10
_OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
_MIB = 1024 * 1024


def examine_redis(url: str, prefix: str) -> Iterator[Finding]:
    """Findings as they are made. The first one has check "connection": without it, no others.

    Args:
        url: a URL that connections.pool() takes.
    """
    connections = pool(url, connections=1, timeout=_TIMEOUT)
    user = connections.connection_kwargs.get("username") or "default"
    with contextlib.ExitStack() as stack:
        connection, listening = (listener_connection(connections) for _ in range(2))
        for each in (connection, listening):
            stack.callback(each.disconnect)
        reached = _connect(connection, prefix, user, address(url))
        yield reached
        if reached.level is Level.PROBLEM:
            return
        try:
            identity = _identity(connection)
            yield _examine_version(identity)
            unsuitable = list(_examine_role(identity))
            yield from unsuitable
            if not unsuitable:
                listening.connect()
                yield from _examine(connection, listening, url, prefix, user)
        except (redis.ConnectionError, redis.TimeoutError, redis.InvalidResponse, OSError) as exc:
            yield _lost(exc)


def address(url: str) -> str:
    """A Redis URL for people: where and as whom, without its password."""
    settings = pool(url, connections=1, timeout=_TIMEOUT).connection_kwargs
    user = f"{settings['username']}@" if settings.get("username") else ""
    database = settings.get("db") or 0
    if "path" in settings:
        return f"unix://{user}{settings['path']}?db={database}"
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    scheme = url.partition("://")[0]
    return f"{scheme}://{user}{host}:{port}/{database}"


def _connect(connection: redis.Connection, prefix: str, user: str, where: str) -> Finding:
    begin = time.monotonic()
    try:
        connection.connect()
        with contextlib.suppress(redis.exceptions.NoPermissionError):
            ask(connection, "PING")
    except WrongSetting as exc:
        return problem("connection", f"{where}: {exc}", "Mend it in the Redis URL.")
    except redis.AuthenticationError as exc:
        advice = "Check user and password; in a URL they are percent-encoded."
        return problem("connection", f"{where} refuses the login: {exc}", advice)
    except redis.exceptions.NoPermissionError as exc:
        missing = missing_permission(exc, prefix)
        rule = missing.rule if missing else ""
        return problem("connection", f"{where}: {exc}", grant(user, rule))
    except (redis.RedisError, OSError) as exc:
        said = without_arguments(exc)
        return problem("connection", f"{where} doesn't answer: {said}", _advice(exc, where))
    taken = time.monotonic() - begin
    return ok("connection", f"{where} answers, {_milliseconds(taken)} with the login")


def _advice(error: Exception, where: str) -> str:
    if where.startswith("rediss:"):
        return "Is it up, and does it speak TLS on this port with a certificate that is trusted?"
    if "closed by server" in str(error):
        return "It may want TLS: rediss:// instead of redis://."
    return "Is it up, is this its address (--redis, STREAMY_REDIS_URL), does a firewall let you by?"


def _lost(error: Exception) -> Finding:
    text = f"the connection broke: {str(error) or 'no answer in time'}"
    return problem("connection", text, "Is Redis restarting, overloaded or behind a bad network?")


def _examine(
    connection: redis.Connection, listening: redis.Connection, url: str, prefix: str, user: str
) -> Iterator[Finding]:
    rights = list(examine_permissions(connection, listening, prefix, user))
    yield from rights
    yield _examine_limits(connection)
    yield _examine_eviction(connection)
    if all(finding.level is Level.OK for finding in rights):
        yield _measure(url, prefix)
    else:
        yield note("delivery", "not tried, since permissions are missing")


def _identity(connection: redis.Connection) -> dict[str, str]:
    """What the server says of itself: server, version, mode and role, as far as it does."""
    try:
        # Allowed to everybody, as opposed to INFO; unknown to Redis 5 and older.
        return _pairs(ask(connection, "HELLO"))
    except redis.ResponseError:
        return _identity_of_old(connection)


def _identity_of_old(connection: redis.Connection) -> dict[str, str]:
    try:
        lines = _text(ask(connection, "INFO")).splitlines()
    except redis.ResponseError:
        return {}
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    names = {"version": "redis_version", "mode": "redis_mode", "role": "role"}
    return {"server": "redis"} | {name: fields[key] for name, key in names.items() if key in fields}


def _examine_version(identity: Mapping[str, str]) -> Finding:
    check = "version"
    if not identity:
        text = "the server doesn't say which it is"
        return note(check, text, "Redis 6.2 or Valkey 7.2 is the oldest that is supported.")
    name, version = identity.get("server", "?"), identity.get("version", "?")
    oldest = _OLDEST.get(name)
    shown = f"{name.capitalize()} {version}"
    if oldest is None:
        return note(check, f"{shown}, with which streamy-redis isn't tested")
    if _numbers(version) < oldest:
        wanted = ".".join(map(str, oldest))
        return problem(check, f"{shown} is too old", f"Take {name.capitalize()} {wanted} or newer.")
    return ok(check, shown)


def _examine_role(identity: Mapping[str, str]) -> Iterator[Finding]:
    """Why nothing can be sent to this server, whatever else is right."""
    mode = identity.get("mode", "standalone")
    if mode != "standalone":
        text = f"the server runs as {mode}, which isn't supported"
        yield problem("mode", text, "Use a Redis without cluster, and not the Sentinel itself.")
    if identity.get("role") in ("replica", "slave"):
        text = "this is a replica: it can be read, but not sent to"
        yield problem("role", text, "Name the primary in the URL.")


def _examine_limits(connection: redis.Connection) -> Finding:
    check = "pubsub buffer"
    try:
        fields = _pairs(ask(connection, "CONFIG", "GET", "client-output-buffer-limit"))
    except redis.ResponseError:
        text = "can't be read: this user may not run CONFIG GET, which streamy-redis doesn't need"
        return note(check, text, "Redis's own default, 32 MiB and 8 MiB for 60 s, is fine.")
    limits = _pubsub_limits(fields.get("client-output-buffer-limit", ""))
    if limits is None:
        return note(check, "the server doesn't say how large it may grow")
    hard, soft, seconds = limits
    largest = StreamConfig().max_event_size
    bounds = [bound for bound in (hard, soft) if bound]
    advice = 'CONFIG SET client-output-buffer-limit "pubsub 33554432 8388608 60"'
    if not bounds:
        text = "without limit: a worker that hangs fills the server's memory"
        return note(check, text, advice)
    text = f"a worker is cut off {_bytes_behind(hard, soft, seconds)}"
    if min(bounds) < 2 * largest:
        text += f", less than two events of max_event_size ({largest} bytes)"
        return note(check, text, advice)
    return ok(check, f"{text}; it then comes back and reads what it missed")


def _bytes_behind(hard: int, soft: int, seconds: int) -> str:
    parts = []
    if hard:
        parts.append(f"when it is {_size(hard)} behind")
    if soft:
        parts.append(f"{_size(soft)} for {seconds} s")
    return ", or ".join(parts)


def _pubsub_limits(text: str) -> tuple[int, int, int] | None:
    """Hard limit, soft limit (bytes; 0 for none) and the soft one's seconds."""
    words = text.split()
    if "pubsub" not in words:
        return None
    at = words.index("pubsub") + 1
    hard, soft, seconds = (int(word) for word in words[at : at + 3])
    return hard, soft, seconds


def _examine_eviction(connection: redis.Connection) -> Finding:
    check = "eviction"
    try:
        policy = _pairs(ask(connection, "CONFIG", "GET", "maxmemory-policy"))
        memory = _pairs(ask(connection, "CONFIG", "GET", "maxmemory"))
    except redis.ResponseError:
        return note(check, "can't be read: this user may not run CONFIG GET", _EVICTION_ADVICE)
    name = policy.get("maxmemory-policy", "noeviction")
    limit = int(memory.get("maxmemory", 0))
    if name == "noeviction" or not limit:
        return ok(check, "histories are never evicted")
    text = f"above {_size(limit)} Redis may evict histories ({name}): clients then get a reset"
    return note(check, text, _EVICTION_ADVICE)


_EVICTION_ADVICE = "A Redis for streams has maxmemory-policy noeviction and enough memory."


def _measure(url: str, prefix: str) -> Finding:
    """How long from send to receive, on a stream of its own that is deleted again."""
    check = "delivery"
    config = StreamConfig(prefix=prefix, history_ttl=60.0, ended_ttl=1.0, send_timeout=_TIMEOUT)
    stream_id = f"streamy-redis doctor {secrets.token_hex(6)}"
    with StreamManager(url, config=config) as streams:
        try:
            delays = _delays(streams, stream_id)
        except StreamyError as exc:
            return problem(check, str(exc), "What Redis says there is what has to be mended.")
        except TimeoutError:
            text = f"an event that was sent was not received within {2 * _TIMEOUT:.0f} s"
            return problem(check, text, "Do both reach the same server? A proxy may split them.")
        finally:
            with contextlib.suppress(StreamyError):
                streams.delete_stream(stream_id)
    text = f"from send to receive {spread(delays)}"
    if statistics.median(delays) > _SLOW:
        return note(check, text, "Put Redis nearer to the workers, or see what keeps it busy.")
    return ok(check, text)


def _delays(streams: StreamManager, stream_id: str) -> list[float]:
    arrivals: queue.SimpleQueue[float | StreamyError] = queue.SimpleQueue()

    def receive() -> None:
        try:
            with streams.subscribe(stream_id) as events:
                arrivals.put(time.monotonic())
                for _ in events:
                    arrivals.put(time.monotonic())
        except StreamyError as exc:
            arrivals.put(exc)

    # Ends when the manager is closed.
    threading.Thread(target=receive, name="streamy-redis doctor", daemon=True).start()
    _arrival(arrivals)
    delays = []
    # The first one pays for connections and for loading the scripts.
    for number in range(_ROUNDS + 1):
        begin = time.monotonic()
        streams.send_event(stream_id, str(number))
        delays.append(_arrival(arrivals) - begin)
    return delays[1:]


def _arrival(arrivals: queue.SimpleQueue[float | StreamyError]) -> float:
    try:
        arrived = arrivals.get(timeout=2 * _TIMEOUT)
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(arrived, StreamyError):
        raise arrived
    return arrived


def spread(delays: Sequence[float]) -> str:
    """Median and longest of some seconds."""
    median, longest = statistics.median(delays), max(delays)
    return (
        f"{_milliseconds(median)} (median of {len(delays)}), {_milliseconds(longest)} at the most"
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _size(count: int) -> str:
    return f"{count / _MIB:g} MiB" if count % _MIB == 0 else f"{count} bytes"


def _pairs(reply: Any) -> dict[str, str]:
    """A flat list of names and values (RESP2); values that are lists are left out."""
    names, values = reply[::2], reply[1::2]
    return {
        _text(name): _text(value)
        for name, value in zip(names, values, strict=True)
        if not isinstance(value, list)
    }


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
