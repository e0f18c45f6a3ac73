"""end, info and delete: what is done to a stream as a whole."""

from __future__ import annotations

import dataclasses

import click

from .command import command
from .failure import ExitCode, Failure
from .options import as_json_option, ended_ttl_option, manager, redis_options, stream_argument
from .output import as_json, printable

__all__ = ["delete", "end", "info"]


@command("streamy-redis end report-7", """streamy-redis end report-7 '{"url": "/7.pdf"}'""")
@stream_argument
@click.argument("data", required=False)
@ended_ttl_option
@redis_options
def end(
    stream_id: str, data: str | None, ended_ttl: float, redis_url: str | None, prefix: str
) -> None:
    """End STREAM for everybody; pages stop reconnecting.

    They get a stream-end event with DATA, and so does who comes as long as the end is remembered.
    """
    with manager(redis_url, prefix, ended_ttl=ended_ttl) as streams:
        if not streams.end_stream(stream_id, data):
            raise Failure(f"stream {stream_id!r} had ended before", ExitCode.STREAM_ENDED)


@command(
    "streamy-redis info room",
    "streamy-redis info room --json | jq -r .last_event_id",
    "streamy-redis info room >/dev/null; [ $? -eq 5 ] && echo 'there is no room'",
)
@stream_argument
@as_json_option
@redis_options
def info(stream_id: str, is_json: bool, redis_url: str | None, prefix: str) -> None:
    """Print what Redis holds of STREAM.

    The exit code is 5 if that is nothing.
    """
    with manager(redis_url, prefix) as streams:
        found = dataclasses.asdict(streams.info(stream_id))
    if is_json:
        click.echo(as_json(found))
    else:
        for name, value in found.items():
            click.echo(f"{name:<16}{_as_text(value)}")
    if not found["exists"]:
        click.get_current_context().exit(ExitCode.NO_STREAM)


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else printable(value)


@command("streamy-redis delete room")
@stream_argument
@redis_options
def delete(stream_id: str, redis_url: str | None, prefix: str) -> None:
    """Forget STREAM's history and end, so that its id can be used anew."""
    with manager(redis_url, prefix) as streams:
        if not streams.delete_stream(stream_id):
            raise Failure(f"there is no stream {stream_id!r}", ExitCode.NO_STREAM)
