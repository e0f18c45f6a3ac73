"""send: an event, or one for each line of standard input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import BinaryIO

import click

from ..config import StreamConfig
from ..exceptions import InvalidEvent, RedisUnavailable, StreamyError
from .command import command
from .failure import Failure
from .options import (
    history_length_option,
    history_ttl_option,
    manager,
    redis_options,
    stream_argument,
)
from .output import printable

__all__ = ["send"]


@command(
    "streamy-redis send room hello",
    """streamy-redis send report-7 --event progress --json '{"percent": 40}'""",
    "tail -f app.log | streamy-redis send log --quiet",
    "streamy-redis send import --key import-2024-05-01 < lines.txt   # may be repeated",
)
@stream_argument
@click.argument("data", required=False)
@click.option("--event", "event_name", metavar="NAME", help="The browser's event type.")
@click.option("--json", "is_json", is_flag=True, help="Refuse data that isn't JSON.")
@click.option(
    "--key",
    metavar="KEY",
    help="Idempotency key: sending again with it stores nothing twice. From standard input, "
    "the number of the line is added to it.",
)
@click.option("--retry", type=int, metavar="MS", help="How long browsers wait to reconnect.")
@click.option("-q", "--quiet", is_flag=True, help="Don't print the events' ids.")
@history_length_option
@history_ttl_option
@redis_options
def send(
    stream_id: str,
    data: str | None,
    event_name: str | None,
    is_json: bool,
    key: str | None,
    retry: int | None,
    quiet: bool,
    history_length: int,
    history_ttl: float,
    redis_url: str | None,
    prefix: str,
) -> None:
    """Send DATA to STREAM, or each line of standard input as it comes.

    Prints the events' ids. Where the application keeps another history than the default, say so
    here as well: what is sent trims the history to its own length.
    """
    settings = {"history_length": history_length, "history_ttl": history_ttl}
    with manager(redis_url, prefix, **settings) as streams:
        for line, item in _items(data):
            own_key = f"{key}:{line}" if key is not None and line is not None else key
            try:
                if is_json:
                    _check_json(item)
                event_id = streams.send_event(
                    stream_id, item, event_name, retry=retry, idempotency_key=own_key
                )
            except StreamyError as exc:
                raise Failure.of(exc, *_how_to_go_on(exc, key, line)) from exc
            if not quiet:
                click.echo(printable(event_id))


def _items(data: str | None) -> Iterator[tuple[int | None, str | bytes]]:
    """What is to be sent, each with the number of its line of standard input."""
    if data is not None:
        yield None, data
        return
    if sys.stdin.isatty():
        click.echo("Each line is an event; Ctrl-D ends.", err=True)
    yield from enumerate(_lines(sys.stdin.buffer), 1)


def _lines(source: BinaryIO) -> Iterator[bytes]:
    # Longer than any event, so that one that doesn't end is refused, not gathered.
    most = StreamConfig.from_env().max_event_size + len(b"\r\n") + 1
    while line := source.readline(most):
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def _how_to_go_on(error: StreamyError, key: str | None, line: int | None) -> Iterator[str]:
    """What has been sent, and how to send again what may have been stored, or not."""
    if line is not None:
        yield f"that was line {line}, those before it were sent"
    if not isinstance(error, RedisUnavailable):
        return
    if key is not None:
        yield "the same command again stores nothing twice"
    elif line is None:
        yield f"with --key {error.idempotency_key} the same command again stores it once"
    else:
        yield "it may have been as well"


def _check_json(item: str | bytes) -> None:
    try:
        json.loads(item, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise InvalidEvent("data", f"must be JSON: {exc}") from exc


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity, browsers don't.
    raise ValueError(f"{name} is none")
