"""Every default, once: its unit and the reason for it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .jsonable import to_json

__all__ = [
    "BATCH_BYTES",
    "BATCH_COMMANDS",
    "BATCH_PAGES_BYTES",
    "BATCH_READS",
    "CHATTER_BYTES",
    "CHECK_JITTER",
    "CLOSE_HOOK_EXIT_TIMEOUT",
    "CLOSE_HOOK_THREADS",
    "EXIT_TIMEOUT",
    "HEADROOM_PART",
    "KEPT_PAGE_EVENTS",
    "LARGEST_BATCH_BYTES",
    "LARGEST_BATCH_EVENTS",
    "LINGER_INTERVAL",
    "LOOK_INTERVAL",
    "MOST_HEADROOM",
    "MOST_WITNESSES",
    "OPEN_TIMEOUT",
    "PAGE_BYTES",
    "PAGE_EVENTS",
    "PING_INTERVAL",
    "PONG_TIMEOUT",
    "READ_TIMEOUT",
    "RECONNECT_INTERVAL",
    "RETRY_BACKOFF",
    "RETRY_READ_INTERVAL",
    "SEND_CONNECTIONS",
    "SLOW_PART",
    "SLOW_READ",
    "STEADY_INTERVAL",
    "TICK_INTERVAL",
    "TROUBLE_INTERVAL",
    "USER_TIMEOUT_SLACK",
    "WRITER_INTERVAL",
    "WRITER_RETRY_INTERVAL",
    "StreamConfig",
    "check_duration",
    "checked_config",
    "with_settings",
]

# Seconds between two looks at keep-alives, deadlines and the server's shutdown flag. A stopped
# server has to be gone within 1 s.
TICK_INTERVAL = 0.25
# Seconds that a response waits for the log before its headers go out: long enough for any Redis
# that answers (a 204 is still possible then), short enough that nobody notices.
OPEN_TIMEOUT = 0.3
# Seconds between two looks of who waits for a stream to open, whether that is of no use.
TROUBLE_INTERVAL = 0.05
# The part of a process's descriptors, and the most of them, that streams leave to everything else:
# what a server accepts before anybody asks us (uvicorn's backlog is 2,048, and asyncio accepts as
# many in one turn; gunicorn's workers hold 1,000), Redis, and what pages open.
HEADROOM_PART = 0.25
MOST_HEADROOM = 2048
# Seconds by which TCP may wait longer for a client than we do: two looks at deadlines.
USER_TIMEOUT_SLACK = 2 * TICK_INTERVAL
# Seconds that a process which exits waits for whoever is writing to its clients.
EXIT_TIMEOUT = 0.3
# Bytes that a client may say on a connection that its stream has taken, behind its request and the
# body of that: browsers say nothing. Each read holds up the thread that attends to all clients.
CHATTER_BYTES = 64 * 1024
# Threads of a process that run what handed over responses do at their end (call_on_close), when
# there is something to run. Hooks mostly wait for a database, whose connections are few; a server
# that is told to stop may end thousands of responses in one moment.
CLOSE_HOOK_THREADS = 8
# Seconds that a process which exits waits for such hooks as are under way. Those that wait for
# their turn it runs itself. Servers kill what takes much longer (gunicorn after 30 s).
CLOSE_HOOK_EXIT_TIMEOUT = 5.0
# Seconds that a channel stays subscribed after its last subscriber left, so that a page reload
# costs no UNSUBSCRIBE and SUBSCRIBE.
LINGER_INTERVAL = 2.0
# Seconds of silence after which the listener sends PING, and seconds it then waits for anything
# to arrive. health_check_interval of redis-py never notices a server that hangs.
PING_INTERVAL = 3.0
PONG_TIMEOUT = 2.0
# Seconds for connecting the listener and for reading one batch of pages of the log.
READ_TIMEOUT = 2.0
# Seconds, first and longest, between two attempts to connect the listener; jittered.
RECONNECT_INTERVAL = (0.05, 0.5)
# Seconds after which a connection is no longer one of those that are lost as soon as made: then
# the log says that it is back, and the next attempt after it will be an immediate one.
STEADY_INTERVAL = 1.0
# Seconds until a read of the log that failed is tried again, first and longest; jittered. A Redis
# that comes back is noticed within 2 s.
RETRY_READ_INTERVAL = (0.5, 1.5)
# Seconds before the first and at most before any retry of a send; doubled each time, jittered.
RETRY_BACKOFF = (0.05, 0.4)
# Seconds for which a writer gathers texts: two frames of a screen, which nobody sees, and at most
# 33 events a second, however fast a model is.
WRITER_INTERVAL = 0.03
# Seconds after which a writer tries again by itself what could not be sent.
WRITER_RETRY_INTERVAL = 0.5
# Streams of which a process remembers what was acknowledged last, so that it notices a server that
# took over without it: some 250 bytes each.
MOST_WITNESSES = 10_000
# Connections that senders of one manager share. With the log reader's one this makes four.
SEND_CONNECTIONS = 3
# What goes to Redis in one round trip, of what waits for a connection: 100 sends keep it busy for
# 2 ms, and a far one takes 1,000 of them a second on each connection; one command always fits. A
# line of 0.5 Mbit/s carries 64 KiB in the time that one try has. What takes longer than this part
# of that time makes the next ones smaller.
BATCH_COMMANDS = 100
BATCH_BYTES = 64 * 1024
SLOW_PART = 0.5
# Events and bytes of one send_events, which is one step of Redis for which everybody else waits: it
# takes some 0.1 s. Redis cuts off a listener that is 8 MB behind for a minute, or 32 MB at once.
LARGEST_BATCH_EVENTS = 10_000
LARGEST_BATCH_BYTES = 4 * 1024 * 1024
# Seconds after which who waits for a connection looks by itself, should nobody have told it.
LOOK_INTERVAL = 0.25
# A page of the log: events and bytes, whichever comes first (one event always fits). So 1,000
# events of 1 KB, with what frames them, are one page.
PAGE_EVENTS = 1000
PAGE_BYTES = 1280 * 1024
# What is read of logs in one round trip. A read that brings no page costs Redis 0.05 ms, a page of
# 1 MiB 1 ms and more: that much a worker may keep it busy while others wait. Full pages begin with
# one, and go back to it while a round trip takes longer than SLOW_READ seconds.
BATCH_READS = 32
BATCH_PAGES_BYTES = 8 * 1024 * 1024
SLOW_READ = 0.1
# Events from which on a page is kept for those who come back to the same place right after: below
# it a page costs Redis as little as the summary that would be read instead.
KEPT_PAGE_EVENTS = 30
# The part of position_check_interval over which checks are spread.
CHECK_JITTER = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How a manager keeps, delivers and retries. Durations are seconds, int or float.

    Args:
        prefix: first part of every key and channel. Databases don't separate Pub/Sub channels;
            the prefix does.
        history_length: events that each stream keeps for resume and replay. 0 makes a stream
            Pub/Sub only: no ids, no resume.
        history_ttl: seconds after its last event at which an idle stream's history is dropped.
        ended_ttl: seconds for which an ended stream is remembered, so that late clients learn
            of the end.
        keep_alive_interval: seconds of silence before a comment is sent. Proxies cut idle
            connections at 60.
        retry_interval: the bounds of the random ``retry:`` each response carries, so that the
            clients of a stopped worker don't come back in one moment.
        max_event_size: bytes of one event's data as it is written, inclusive: of UTF-8, and 6 more
            for each line after the first.
        max_backlog: unsent live events at which a slow client's response is cut; it resumes from
            its cursor.
        max_backlog_bytes: the same in bytes of whole frames, as they are written. One always fits.
        write_timeout: seconds that one write to a client may take, here and, where it can be told,
            in the kernel.
        send_timeout: seconds after which a send gives up on Redis.
        max_retries: retries of a send within send_timeout.
        position_check_interval: seconds of silence on a stream after which the log is compared
            with what was heard.
        max_subscribers: open responses of this process, per manager; None for no limit.
        max_lifetime: seconds after which a response is cut and the client resumes, up to a fifth
            earlier at random; None for no limit.
        handover: whether a Flask response on gunicorn gives its socket to the manager, so that it
            takes no thread of the worker. Headers that a WSGI middleware adds don't reach it.
        json_encoder: turns what is neither str nor bytes into JSON text (str or UTF-8 bytes). By
            itself that is the JSON provider of the Flask app, and elsewhere what FastAPI makes of
            dataclasses, Pydantic models, datetimes and the like.

    Raises:
        ValueError, TypeError: naming the field and the rule.
    """

    prefix: str = "streamy"
    history_length: int = 1000
    history_ttl: float = 3600.0
    ended_ttl: float = 600.0
    keep_alive_interval: float = 15.0
    retry_interval: tuple[float, float] = (1.0, 3.0)
    max_event_size: int = 1024 * 1024
    max_backlog: int = 1000
    max_backlog_bytes: int = 1024 * 1024
    write_timeout: float = 30.0
    send_timeout: float = 5.0
    max_retries: int = 3
    position_check_interval: float = 10.0
    max_subscribers: int | None = None
    max_lifetime: float | None = None
    handover: bool = True
    json_encoder: Callable[[Any], str | bytes] = to_json

    def __post_init__(self) -> None:
        _check_prefix(self.prefix)
        for name in ("history_length", "max_retries"):
            _check_count(name, getattr(self, name), least=0)
        for name in ("max_event_size", "max_backlog", "max_backlog_bytes"):
            _check_count(name, getattr(self, name), least=1)
        for name in (
            "history_ttl",
            "ended_ttl",
            "keep_alive_interval",
            "write_timeout",
            "send_timeout",
            "position_check_interval",
        ):
            check_duration(name, getattr(self, name))
        _check_interval("retry_interval", self.retry_interval)
        if self.max_subscribers is not None:
            _check_count("max_subscribers", self.max_subscribers, least=1)
        if self.max_lifetime is not None:
            check_duration("max_lifetime", self.max_lifetime)
        if not isinstance(self.handover, bool):
            raise TypeError(f"handover must be a bool, not {type(self.handover).__name__}")
        _check_encoder(self.json_encoder)

    @classmethod
    def from_env(cls) -> StreamConfig:
        """What the environment says: ``STREAMY_HISTORY_LENGTH=100`` sets ``history_length``.

        Durations are seconds, ``STREAMY_RETRY_INTERVAL=1,3`` is a pair, a bool is ``true`` or
        ``false``, and ``STREAMY_JSON_ENCODER=package.module:function`` is imported. What is missing
        or empty has its default. Other variables that begin with ``STREAMY_`` are somebody else's:
        ``STREAMY_REDIS_URL`` is the manager's, and Kubernetes makes some for a service ``streamy``.

        Raises:
            ValueError: naming the variable and the rule.
        """
        found: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = f"STREAMY_{field.name.upper()}"
            text = os.environ.get(variable, "").strip()
            if text:
                found[field.name] = cls._read(variable, text, field)
        return cls(**found)

    @classmethod
    def _read(cls, variable: str, text: str, field: dataclasses.Field[Any]) -> Any:
        read, kind = _READERS[field.type]
        try:
            value = read(text)
        except (ValueError, ImportError, AttributeError) as exc:
            raise ValueError(f"{variable} must be {kind}, not {text!r}") from exc
        try:
            cls(**{field.name: value})
        except (ValueError, TypeError) as exc:
            raise ValueError(f"{variable}: {exc}") from exc
        return value


def checked_config(config: object) -> StreamConfig:
    """A manager's config argument: a StreamConfig, or None for the environment's."""
    if config is None:
        return StreamConfig.from_env()
    if not isinstance(config, StreamConfig):
        raise TypeError(f"config must be a StreamConfig, not {type(config).__name__}")
    return config


def with_settings(config: StreamConfig, settings: Mapping[str, Any]) -> StreamConfig:
    """A configuration with the ``STREAMY_*`` settings of a Flask app over it.

    ``STREAMY_HISTORY_LENGTH = 100`` sets ``history_length``. ``STREAMY_REDIS_URL`` is the
    manager's; any other ``STREAMY_`` name that is no field is a ValueError, since it is most
    likely a slip of the pen.
    """
    fields = {f"STREAMY_{field.name.upper()}": field.name for field in dataclasses.fields(config)}
    changes = {}
    for setting, value in settings.items():
        if not setting.startswith("STREAMY_") or setting == "STREAMY_REDIS_URL":
            continue
        if setting not in fields:
            raise ValueError(f"{setting} is no setting; there are {', '.join(sorted(fields))}")
        changes[fields[setting]] = value
    return dataclasses.replace(config, **changes) if changes else config


def _read_pair(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _read_bool(text: str) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError from None


# How the text of a variable becomes the value of a field, by the field's type, and what a person
# is told where it can't.
_READERS: dict[object, tuple[Callable[[str], Any], str]] = {
    "str": (str, "text"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float": (float, "a number of seconds"),
    "float | None": (float, "a number of seconds"),
    "tuple[float, float]": (_read_pair, "two numbers of seconds, such as 1,3"),
    "bool": (_read_bool, "true or false"),
    "Callable[[Any], str | bytes]": (pkgutil.resolve_name, "module:function"),
}


def _check_prefix(prefix: object) -> None:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be a str, not {type(prefix).__name__}")
    if not prefix or any(c in "{}" or not c.isprintable() for c in prefix):
        # A brace would move the cluster's hash tag away from the stream id.
        raise ValueError("prefix must be printable, not empty, and hold no { or }")


def _check_count(name: str, value: object, *, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    # Redis reads a count as a signed number of 64 bits.
    if not least <= value < 2**63:
        raise ValueError(f"{name} must be at least {least} and below 2**63, not {value}")


def check_duration(name: str, value: object) -> None:
    """Raises unless value is a duration in seconds: TypeError or ValueError, naming it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be seconds as int or float, not {type(value).__name__}")
    # Redis counts in whole milliseconds; threads can't wait longer than 292 years.
    if not (math.isfinite(value) and 0.001 <= value <= 1e9):
        raise ValueError(f"{name} must be between 0.001 and 1e9 seconds, not {value}")


def _check_interval(name: str, value: object) -> None:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must be a pair of seconds (least, most)")
    for bound in value:
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise TypeError(f"{name} must be a pair of seconds as int or float")
    if not (0 <= value[0] <= value[1] <= 86400):
        raise ValueError(f"{name} must be ordered and between 0 and 86400 seconds, not {value}")


def _check_encoder(encoder: object) -> None:
    if isinstance(encoder, type) and issubclass(encoder, json.JSONEncoder):
        raise TypeError(
            "json_encoder must be a function from a value to JSON text; "
            f"pass {encoder.__name__}().encode"
        )
    if not callable(encoder):
        raise TypeError(f"json_encoder must be callable, not {type(encoder).__name__}")
