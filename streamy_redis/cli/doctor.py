"""doctor: what the checks of streamy_redis.doctor find, as lines."""

from __future__ import annotations

import dataclasses

import click

from ..doctor import Finding, Level, checked_header, checked_url, examine_endpoint, examine_redis
from .command import command
from .failure import ExitCode, usage_error
from .options import (
    as_json_option,
    checked_config,
    redis_options,
    shared_source,
    stream_option,
)
from .output import as_json, printable

__all__ = ["doctor"]

_COLOURS = {Level.OK: "green", Level.NOTE: "yellow", Level.PROBLEM: "red"}


@command(
    "streamy-redis doctor",
    "streamy-redis doctor --redis rediss://streamy:secret@redis.internal:6380/0",
    "streamy-redis doctor http://127.0.0.1:8000/events/room --stream room",
    "streamy-redis doctor https://example.org/inbox --stream inbox:7 -H 'Cookie: session=abc'",
)
@click.argument("url", required=False)
@stream_option
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header of the request to URL; may be repeated.",
)
@as_json_option
@redis_options
def doctor(
    url: str | None,
    stream_id: str | None,
    headers: tuple[str, ...],
    is_json: bool,
    redis_url: str | None,
    prefix: str,
) -> None:
    """Find what keeps events from arriving: Redis, or what serves URL.

    Redis: is it there, is it new enough, does it allow all that is needed, how far may a worker
    be behind, how long does an event take. The endpoint: status, headers, time to the first
    byte, and whether something on the way buffers or compresses events. For that, events named
    streamy-redis-doctor are sent to who listens to STREAM now: some small ones, and up to 64 KiB
    if they don't arrive. They aren't kept, and pages don't listen to that name.

    The exit code is 1 if there is a problem, 3 if Redis can't be reached. Notes are none.
    """
    source = shared_source(redis_url)
    checked_config(prefix)
    try:
        where = checked_url(url) if url is not None else None
        fields = dict(checked_header(text) for text in headers)
    except ValueError as exc:
        raise usage_error(str(exc)) from exc
    show = _as_json if is_json else _as_text
    code = ExitCode.DONE
    for finding in examine_redis(source, prefix):
        click.echo(show("redis", finding))
        if finding.level is Level.PROBLEM:
            is_away = finding.check == "connection"
            code = ExitCode.REDIS_UNAVAILABLE if is_away else ExitCode.PROBLEM
    if where is not None:
        reached = None if code is ExitCode.REDIS_UNAVAILABLE else source
        for finding in examine_endpoint(where, fields, reached, prefix, stream_id):
            click.echo(show("endpoint", finding))
            if finding.level is Level.PROBLEM:
                code = code or ExitCode.PROBLEM
    click.get_current_context().exit(code)


def _as_json(subject: str, finding: Finding) -> str:
    fields = dataclasses.asdict(finding) | {"level": finding.level.value}
    return as_json({"subject": subject, **fields})


def _as_text(subject: str, finding: Finding) -> str:
    level = finding.level
    marked = click.style(f"{level.value:<8}", fg=_COLOURS[level], bold=level is Level.PROBLEM)
    text = f"{marked} {f'{subject} {finding.check}':<27} {printable(finding.text)}"
    if finding.advice:
        text += f"\n{'':<37}-> {printable(finding.advice)}"
    return text
