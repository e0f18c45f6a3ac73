"""listen: a stream's events as lines."""

from __future__ import annotations

import dataclasses
import logging
import sys

import click

from ..core.event import ReceivedEvent
from ..core.publication import Position
from ..core.replay import Replay, validate_replay
from ..exceptions import StreamyError
from .command import command
from .options import as_json_option, manager, redis_options, stream_argument
from .output import as_json, log_to_standard_error, printable, watch_output

__all__ = ["listen"]


def _validated_event_id(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Refused if it is none, since nothing would be shown as missed; "" is that of a first time."""
    if value and Position.parse(value) is None:
        raise click.BadParameter("must be an event's id, as send and listen print it")
    return value


@command(
    "streamy-redis listen room",
    "streamy-redis listen report-7 --replay all --json | jq -r .data",
    "streamy-redis listen room --json --last-event-id 1732173291000000-12-5f2a9c01",
)
@stream_argument
@as_json_option
@click.option(
    "--replay",
    default="0",
    show_default=True,
    metavar="N|all",
    help="Begin with the newest N events of the history, or with all of them.",
)
@click.option(
    "--last-event-id",
    metavar="ID",
    callback=_validated_event_id,
    help="Begin behind this event, and miss none.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error when Redis goes away.")
@redis_options
def listen(
    stream_id: str,
    is_json: bool,
    replay: str,
    last_event_id: str | None,
    verbose: bool,
    redis_url: str | None,
    prefix: str,
) -> None:
    """Print the events of STREAM until it ends.

    As text that is id, name and data. Lost connections to Redis are bridged from the history.
    What it can't show any more comes as a stream-reset event, the end as stream-end.
    """
    if verbose:
        log_to_standard_error(logging.INFO)
    show = _as_json if is_json else _as_text
    begin = _replay(replay)
    with (
        manager(redis_url, prefix) as streams,
        streams.subscribe(stream_id, last_event_id=last_event_id, replay=begin) as events,
    ):
        if sys.stderr.isatty():
            click.echo(f"Listening to {stream_id!r}; Ctrl-C stops.", err=True)
        # Closing the manager stops the events.
        is_unread = watch_output(streams.close)
        try:
            for event in events:
                click.echo(show(event))
        except StreamyError:
            if not is_unread.is_set():
                raise
            raise BrokenPipeError from None


def _replay(text: str) -> Replay:
    return validate_replay(int(text) if text.isascii() and text.isdigit() else text)


def _as_json(event: ReceivedEvent) -> str:
    return as_json(dataclasses.asdict(event))


def _as_text(event: ReceivedEvent) -> str:
    # A column behind the id for each further line.
    head = f"{printable(event.id or '-')}  {printable(event.name)}  "
    return head + f"\n{' ' * len(head)}".join(map(printable, event.data.split("\n")))
