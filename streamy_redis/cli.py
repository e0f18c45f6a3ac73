"""The command line: sends, listens and examines from a shell.

Exit codes: 0 done; 1 the doctor found a problem, or something else failed; 2 an argument breaks
a rule; 3 Redis can't be reached, or refuses; 4 the stream has ended; 5 there is no such stream;
130 Ctrl-C; 141 nobody reads the output any more.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, TypeVar

import click

from .config import StreamConfig
from .connections import MEMORY_URL, listener_connection, pool, url_from_environment
from .core.event import ReceivedEvent
from .core.replay import Replay, validate_replay
from .exceptions import InvalidEvent, RedisUnavailable, StreamEnded
from .sync.manager import StreamManager

__all__ = ["run", "streamy_redis"]

PROBLEM, USAGE, REDIS_UNAVAILABLE, STREAM_ENDED, NO_STREAM = 1, 2, 3, 4, 5
# As shells give them: 128 and the number of the signal, SIGINT and SIGPIPE.
INTERRUPTED, BROKEN_PIPE = 130, 141

_COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
Command = TypeVar("Command", bound=Callable[..., Any])


def run() -> int:
    """Runs the command of ``sys.argv`` and returns its exit code."""
    # What went wrong for good is said once, by the command; the log is for those who ask for it.
    logging.getLogger("streamy_redis").addHandler(logging.NullHandler())
    try:
        return streamy_redis.main(standalone_mode=False) or 0
    except _Failure as exc:
        exc.show()
        return exc.code
    except click.UsageError as exc:
        _show_usage_error(exc)
        return USAGE
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED


def _show_usage_error(error: click.UsageError) -> None:
    # click 8.2 and newer end like this where it shows the help of a group without a command.
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        error.show()
        return
    path = error.ctx.command_path if error.ctx else "streamy-redis"
    message = " ".join(error.format_message().split()).removesuffix(".")
    click.echo(f"Error: {message}; see `{path} --help`", err=True)


class _Failure(click.ClickException):
    """Raised when a command fails: one line that says what to do, and an exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        # What Redis and the system say may have several lines.
        super().__init__(" ".join(message.split()))
        self.code = exit_code


class _Commands(click.Group):
    """Turns what commands raise into messages and exit codes, at one place."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InvalidEvent as exc:
            raise _Failure(str(exc), USAGE) from exc
        except StreamEnded as exc:
            message = f"stream {exc.stream_id!r} has ended; `streamy-redis delete` forgets the end"
            raise _Failure(message, STREAM_ENDED) from exc
        except RedisUnavailable as exc:
            raise _Failure(_unavailable(exc), REDIS_UNAVAILABLE) from exc
        except BrokenPipeError:
            _leave_output()
            ctx.exit(BROKEN_PIPE)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _unavailable(error: RedisUnavailable) -> str:
    return f"{str(error).removesuffix('.')}; `streamy-redis doctor` says more"


def _leave_output() -> None:
    """Lets Python end without a complaint that it couldn't flush (see docs of SIGPIPE)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _epilog(*lines: str) -> str:
    """Examples for a help text; click leaves a paragraph behind \\b as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def _redis_options(command: Command) -> Command:
    """--redis and --prefix, which every command takes."""
    for option in (
        click.option(
            "--prefix",
            envvar="STREAMY_PREFIX",
            default=StreamConfig().prefix,
            show_default=True,
            show_envvar=True,
            help="First part of every key, as in the application's StreamConfig.",
        ),
        click.option(
            "--redis",
            "redis_url",
            metavar="URL",
            help="The Redis of the application. Otherwise STREAMY_REDIS_URL, REDIS_URL, "
            "redis://localhost:6379/0.",
        ),
    ):
        command = option(command)
    return command


def _config_option(name: str, kind: type, text: str) -> Callable[[Command], Command]:
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


_history_length = _config_option(
    "history_length", int, "Events to keep, as in the application's StreamConfig."
)
_history_ttl = _config_option(
    "history_ttl", float, "Seconds to keep them after the last one, as there."
)
_ended_ttl = _config_option("ended_ttl", float, "Seconds to remember the end, as there.")


def _manager(redis_url: str | None, prefix: str, **settings: Any) -> StreamManager:
    """A manager, once URL and settings are known to be good. For `with`."""
    url = _checked_url(redis_url)
    try:
        return StreamManager(url, config=StreamConfig(prefix=prefix, **settings))
    except (ValueError, TypeError) as exc:
        raise click.UsageError(str(exc)) from exc


def _checked_url(redis_url: str | None) -> str:
    url = redis_url or url_from_environment()
    if url == MEMORY_URL:
        raise click.UsageError("memory:// lives inside one process: name the Redis, with --redis")
    try:
        listener_connection(pool(url, connections=1, timeout=1.0))
    except (ValueError, TypeError) as exc:
        raise click.UsageError(f"the Redis URL is wrong: {exc}") from exc
    return url


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_epilog(
        "streamy-redis send room hello",
        "streamy-redis listen room --replay all",
        "streamy-redis doctor https://example.org/events/room --stream room",
    ),
)
@click.version_option(package_name="streamy-redis")
def streamy_redis() -> None:
    """Server-sent events, carried by Redis: send, listen, and see what keeps them from arriving.

    Exit codes: 0 done, 1 a problem was found, 2 a wrong argument, 3 Redis can't be reached or
    refuses, 4 the stream has ended, 5 there is no such stream, 130 Ctrl-C.
    """


@streamy_redis.command(
    epilog=_epilog(
        "streamy-redis send room hello",
        """streamy-redis send report-7 --event progress --json '{"percent": 40}'""",
        "tail -f app.log | streamy-redis send log --quiet",
        "streamy-redis send import --key import-2024-05-01 < lines.txt   # may be repeated",
    )
)
@click.argument("stream_id", metavar="STREAM")
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
@_history_length
@_history_ttl
@_redis_options
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
    """Send DATA to STREAM, or each line of standard input as it comes, and print the ids.

    Where the application keeps another history than the default, say so here as well: what is
    sent trims the history to its own length.
    """
    settings = {"history_length": history_length, "history_ttl": history_ttl}
    number = 0
    with _manager(redis_url, prefix, **settings) as streams:
        try:
            for item, own_key in _items(data, key):
                number += 1
                if is_json:
                    _check_json(item)
                event_id = streams.send_event(
                    stream_id, item, event_name, retry=retry, idempotency_key=own_key
                )
                if not quiet:
                    click.echo(event_id)
        except RedisUnavailable as exc:
            # The event may have been stored, and its reply lost.
            how = _how_to_repeat(exc, key, number if data is None else None)
            raise _Failure(f"{_unavailable(exc)}; {how}", REDIS_UNAVAILABLE) from exc


def _how_to_repeat(error: RedisUnavailable, key: str | None, line: int | None) -> str:
    """How to send again what may have been stored, or not.

    Args:
        line: of standard input, if that is where the event comes from.
    """
    if key is not None:
        return "the same command again stores nothing twice"
    if line is not None:
        return f"that was line {line}, those before it were sent"
    return f"with --key {error.idempotency_key} the same command again stores it once"


def _items(data: str | None, key: str | None) -> Iterator[tuple[str | bytes, str | None]]:
    """What is to be sent, each with its idempotency key."""
    if data is not None:
        yield data, key
        return
    if sys.stdin.isatty():
        click.echo("Each line is an event; Ctrl-D ends.", err=True)
    for number, line in enumerate(_lines(sys.stdin.buffer), 1):
        yield line, f"{key}:{number}" if key is not None else None


def _lines(source: BinaryIO) -> Iterator[bytes]:
    for line in source:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def _check_json(item: str | bytes) -> None:
    try:
        json.loads(item, parse_constant=_refuse_constant)
    except ValueError as exc:
        raise InvalidEvent("data", f"must be JSON: {exc}") from exc


def _refuse_constant(name: str) -> None:
    # Python reads NaN and Infinity, browsers don't.
    raise ValueError(f"{name} is none")


@streamy_redis.command(
    epilog=_epilog(
        "streamy-redis end report-7", """streamy-redis end report-7 '{"url": "/7.pdf"}'"""
    )
)
@click.argument("stream_id", metavar="STREAM")
@click.argument("data", required=False)
@_ended_ttl
@_redis_options
def end(
    stream_id: str, data: str | None, ended_ttl: float, redis_url: str | None, prefix: str
) -> None:
    """End STREAM, for everybody: pages get stream-end with DATA and stop reconnecting."""
    with _manager(redis_url, prefix, ended_ttl=ended_ttl) as streams:
        if not streams.end_stream(stream_id, data):
            raise _Failure(f"stream {stream_id!r} had ended before", STREAM_ENDED)


@streamy_redis.command(
    epilog=_epilog(
        "streamy-redis listen room",
        "streamy-redis listen report-7 --replay all --json | jq -r .data",
        "streamy-redis listen room --json --last-event-id 1732173291000000-12-5f2a9c01",
    )
)
@click.argument("stream_id", metavar="STREAM")
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--replay",
    default="0",
    show_default=True,
    metavar="N|all",
    help="Begin with the newest N events of the history, or with all of them.",
)
@click.option("--last-event-id", metavar="ID", help="Begin behind this event, and miss none.")
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error when Redis goes away.")
@_redis_options
def listen(
    stream_id: str,
    is_json: bool,
    replay: str,
    last_event_id: str | None,
    verbose: bool,
    redis_url: str | None,
    prefix: str,
) -> None:
    """Print the events of STREAM until it ends: id, name and data, or JSON with --json.

    Lost connections to Redis are bridged from the history. What it can't show any more comes as
    a stream-reset event, the end as stream-end.
    """
    if verbose:
        logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    begin = _replay(replay)
    with (
        _manager(redis_url, prefix) as streams,
        _OutputWatch(streams.close) as output,
        streams.subscribe(stream_id, last_event_id=last_event_id, replay=begin) as events,
    ):
        if sys.stderr.isatty():
            click.echo(f"Listening to {stream_id!r}; Ctrl-C stops.", err=True)
        for event in events:
            click.echo(_as_json(event) if is_json else _as_text(event))
        if output.is_closed:
            raise BrokenPipeError


def _replay(text: str) -> Replay:
    return validate_replay(int(text) if text.isascii() and text.isdigit() else text)


def _as_json(event: ReceivedEvent) -> str:
    return json.dumps(dataclasses.asdict(event), ensure_ascii=False)


def _as_text(event: ReceivedEvent) -> str:
    # A column behind the id for each further line, and nothing that steers the terminal.
    data = "\n".join(_printable(line) for line in event.data.split("\n"))
    head = f"{event.id or '-'}  {_printable(event.name)}  "
    return head + data.replace("\n", "\n" + " " * len(head))


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


class _OutputWatch:
    """Notices that nobody reads standard output any more, while there is nothing to write."""

    def __init__(self, on_closed: Callable[[], None]) -> None:
        self._on_closed = on_closed
        self.is_closed = False

    def __enter__(self) -> _OutputWatch:
        threading.Thread(target=self._watch, name="streamy-redis output", daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def _watch(self) -> None:
        poll = select.poll()
        # Without events to ask for, poll(2) tells of POLLERR: a pipe without a reader.
        poll.register(sys.stdout.fileno(), 0)
        poll.poll()
        self.is_closed = True
        self._on_closed()


@streamy_redis.command(
    epilog=_epilog(
        "streamy-redis info room",
        "streamy-redis info room --json | jq -r .last_event_id",
        "streamy-redis info room >/dev/null || echo 'there is no room'",
    )
)
@click.argument("stream_id", metavar="STREAM")
@click.option("--json", "is_json", is_flag=True, help="As a JSON object.")
@_redis_options
def info(stream_id: str, is_json: bool, redis_url: str | None, prefix: str) -> None:
    """Print what Redis holds of STREAM. The exit code is 5 if that is nothing."""
    with _manager(redis_url, prefix) as streams:
        found = dataclasses.asdict(streams.info(stream_id))
    if is_json:
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        for name, value in found.items():
            click.echo(f"{name:<16}{_value(value)}")
    if not found["exists"]:
        raise click.exceptions.Exit(NO_STREAM)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


@streamy_redis.command(epilog=_epilog("streamy-redis delete room"))
@click.argument("stream_id", metavar="STREAM")
@_redis_options
def delete(stream_id: str, redis_url: str | None, prefix: str) -> None:
    """Forget STREAM's history and end, so that its id can be used anew."""
    with _manager(redis_url, prefix) as streams:
        if not streams.delete_stream(stream_id):
            raise _Failure(f"there is no stream {stream_id!r}", NO_STREAM)


@streamy_redis.command(
    epilog=_epilog(
        "streamy-redis doctor",
        "streamy-redis doctor --redis rediss://streamy:secret@redis.internal:6380/0",
        "streamy-redis doctor http://127.0.0.1:8000/events/room --stream room",
        "streamy-redis doctor https://example.org/inbox --stream inbox:7 -H 'Cookie: session=…'",
    )
)
@click.argument("url", required=False)
@click.option("--stream", "stream_id", metavar="STREAM", help="The stream that URL serves.")
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A header of the request to URL; may be repeated.",
)
@click.option("--json", "is_json", is_flag=True, help="One JSON object a line.")
@_history_ttl
@_redis_options
def doctor(
    url: str | None,
    stream_id: str | None,
    headers: tuple[str, ...],
    is_json: bool,
    history_ttl: float,
    redis_url: str | None,
    prefix: str,
) -> None:
    """Examine Redis, and with URL an endpoint: does what is sent now arrive now?

    Redis: is it there, is it new enough, does it allow all that is needed, how far may a worker
    be behind, how long does an event take. The endpoint: status, headers, time to the first
    byte, and whether something on the way buffers or compresses events. For that a few events
    named streamy-redis-doctor, which pages don't listen to, are sent to STREAM; up to 64 KiB of
    them if they don't arrive.

    The exit code is 1 if there is a problem, 3 if Redis can't be reached. Notes are none.
    """
    from .doctor import Level, checked_url, examine_endpoint, examine_redis

    source = _checked_url(redis_url)
    show = _finding_as_json if is_json else _finding_as_text
    try:
        fields = dict(_header(text) for text in headers)
        where = checked_url(url) if url is not None else None
        config = StreamConfig(prefix=prefix, history_ttl=history_ttl)
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    levels = set()
    is_reached = True
    for finding in examine_redis(source, prefix):
        click.echo(show("redis", finding))
        levels.add(finding.level)
        if finding.check == "connection" and finding.level is Level.PROBLEM:
            is_reached = False
    if where is not None:
        reached = source if is_reached else None
        for finding in examine_endpoint(where, fields, reached, config, stream_id):
            click.echo(show("endpoint", finding))
            levels.add(finding.level)
    if not is_reached:
        raise click.exceptions.Exit(REDIS_UNAVAILABLE)
    if Level.PROBLEM in levels:
        raise click.exceptions.Exit(PROBLEM)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise ValueError(f"--header must be 'NAME: VALUE', not {text!r}")
    return name.strip(), value.strip()


def _finding_as_json(subject: str, finding: Any) -> str:
    fields = dataclasses.asdict(finding) | {"level": finding.level.value}
    return json.dumps({"subject": subject, **fields}, ensure_ascii=False)


def _finding_as_text(subject: str, finding: Any) -> str:
    level = finding.level.value
    marked = click.style(f"{level:<8}", fg=_COLOURS[level], bold=level == "problem")
    lines = [f"{marked} {subject + ' ' + finding.check:<27} {_printable(finding.text)}"]
    if finding.advice:
        lines.append(f"{'':<37}-> {_printable(finding.advice)}")
    return "\n".join(lines)


@streamy_redis.command(
    epilog=_epilog("streamy-redis demo", "streamy-redis demo --redis redis://localhost --port 0")
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any."
)
@_redis_options
def demo(port: int, redis_url: str | None, prefix: str) -> None:
    """Show a stream in the browser, with Flask's own server on this machine.

    Without a Redis in --redis or the environment it runs on memory://, inside this process. The
    boards with several workers are in the repository: scripts/demo.
    """
    try:
        from .demo import DemoServer, source_for_demo
    except ModuleNotFoundError as exc:
        if exc.name != "flask":
            raise
        message = "the demo needs Flask: pip install 'streamy-redis[cli,flask,memory]'"
        raise _Failure(message, USAGE) from exc

    source = source_for_demo(redis_url)
    if source != MEMORY_URL:
        source = _checked_url(source)
    try:
        server = DemoServer(source, StreamConfig(prefix=prefix), port)
    except ImportError as exc:
        raise _Failure(str(exc), USAGE) from exc
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    except OSError as exc:
        message = f"port {port} can't be used ({exc.strerror}); take another one, with --port"
        raise _Failure(message, PROBLEM) from exc
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    for line in _welcome(server):
        click.echo(line)
    server.serve()


def _welcome(server: Any) -> Iterable[str]:
    yield f"Open {server.url} in one or more windows; Ctrl-C stops."
    if server.is_shared:
        yield f"From another shell: streamy-redis send {server.stream_id} hello"
    else:
        yield "Events live in this process only (memory://); --redis URL shares them."
