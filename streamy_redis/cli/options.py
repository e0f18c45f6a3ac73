"""Arguments and options that several commands take, and the manager that they make."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..config import StreamConfig
from ..connections import MEMORY_URL, check_url, pool, url_from_environment
from ..exceptions import InvalidEvent
from ..keys import validate_stream_id
from ..sync.manager import StreamManager
from .failure import usage_error

__all__ = [
    "as_json_option",
    "checked_config",
    "checked_source",
    "ended_ttl_option",
    "history_length_option",
    "history_ttl_option",
    "manager",
    "redis_options",
    "shared_source",
    "stream_argument",
    "stream_option",
]

Function = TypeVar("Function", bound=Callable[..., Any])


def _validated_stream_id(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refused before anything is asked or sent."""
    try:
        return None if value is None else validate_stream_id(value)
    except InvalidEvent as exc:
        raise click.BadParameter(exc.rule, context, parameter) from exc


stream_argument = click.argument("stream_id", metavar="STREAM", callback=_validated_stream_id)
stream_option = click.option(
    "--stream",
    "stream_id",
    metavar="STREAM",
    callback=_validated_stream_id,
    help="The stream that URL serves.",
)
as_json_option = click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")

_redis_option = click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    help="The Redis of the application. Otherwise STREAMY_REDIS_URL, REDIS_URL, "
    "redis://localhost:6379/0.",
)
_prefix_option = click.option(
    "--prefix",
    envvar="STREAMY_PREFIX",
    default=StreamConfig().prefix,
    show_default=True,
    show_envvar=True,
    help="First part of every key, as in the application's StreamConfig.",
)


def redis_options(function: Function) -> Function:
    """--redis and --prefix, which every command takes."""
    return _redis_option(_prefix_option(function))


def _config_option(name: str, kind: type, text: str) -> Callable[[Function], Function]:
    """A field of StreamConfig as an option and a variable, which Flask's settings are named as."""
    return click.option(
        f"--{name.replace('_', '-')}",
        envvar=f"STREAMY_{name.upper()}",
        type=kind,
        default=getattr(StreamConfig(), name),
        show_default=True,
        show_envvar=True,
        help=text,
    )


history_length_option = _config_option(
    "history_length", int, "Events to keep, as in the application's StreamConfig."
)
history_ttl_option = _config_option(
    "history_ttl", float, "Seconds to keep them after the last one, as there."
)
ended_ttl_option = _config_option(
    "ended_ttl", float, "Seconds to remember the end, as in the application's StreamConfig."
)


def checked_config(prefix: str, **settings: Any) -> StreamConfig:
    try:
        # What no option says, the variables do, as in the application.
        return dataclasses.replace(StreamConfig.from_env(), prefix=prefix, **settings)
    except ValueError as exc:
        raise usage_error(str(exc)) from exc


def checked_source(url: str) -> str:
    """The URL of a Redis, once its form is known to be good."""
    try:
        check_url(url)
    except ValueError as exc:
        raise usage_error(str(exc)) from exc
    # ImportError where memory:// needs an extra.
    pool(url, connections=1, timeout=1.0)
    return url


def shared_source(redis_url: str | None) -> str:
    """The URL of a Redis that other processes use as well."""
    url = redis_url or url_from_environment()
    if url == MEMORY_URL:
        raise usage_error("memory:// lives inside one process: name the Redis, with --redis")
    return checked_source(url)


def manager(redis_url: str | None, prefix: str, **settings: Any) -> StreamManager:
    """A manager for `with`."""
    return StreamManager(shared_source(redis_url), config=checked_config(prefix, **settings))
