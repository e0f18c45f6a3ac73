"""The command line: sends, listens and examines from a shell.

Each command is a function of its name, in a module of its own or with those like it.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback

import click

from . import demo, doctor, listen, send, streams
from .command import examples
from .failure import ExitCode, Failure, show
from .output import leave_output, open_closed_streams, printable

__all__ = ["ExitCode", "run", "streamy_redis"]


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "streamy-redis send room hello",
        "streamy-redis listen room --replay all",
        "streamy-redis doctor https://example.org/events/room --stream room",
    ),
)
@click.version_option(package_name="streamy-redis")
@click.pass_context
def streamy_redis(context: click.Context) -> None:
    """Server-sent events, carried by Redis: send, listen, and see what keeps them from arriving.

    Exit codes: 0 done, 1 a problem was found or something else failed, 2 a wrong argument or a
    missing extra, 3 Redis can't be reached or refuses, 4 the stream has ended, 5 there is no such
    stream, 130 Ctrl-C, 141 nobody reads the output any more.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(ExitCode.USAGE)


for each in (
    send.send,
    listen.listen,
    streams.end,
    streams.info,
    streams.delete,
    doctor.doctor,
    demo.demo,
):
    streamy_redis.add_command(each)


def run() -> int:
    """Runs the command of ``sys.argv`` and returns its exit code."""
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding can't show is escaped.
        sys.stdout.reconfigure(errors="backslashreplace")
    # What went wrong for good is said once, by the command; the log is for those who ask for it.
    logging.getLogger("streamy_redis").addHandler(logging.NullHandler())
    # None leaves it to click: colours for terminals (no-color.org for the rest).
    colour = False if os.environ.get("NO_COLOR") else None
    try:
        # By one name, also as python -m: completion's variable is made of it.
        done = streamy_redis.main(prog_name="streamy-redis", standalone_mode=False, color=colour)
        return done or ExitCode.DONE
    except click.ClickException as exc:
        return show(exc)
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except OSError as exc:
        # Of standard input or output, such as a full disk: all others are the commands' own.
        leave_output()
        return show(Failure(f"standard input or output: {exc.strerror}"))
    except Exception:
        # A bug of ours, or something else than a Redis answers, whose words it holds.
        for line in traceback.format_exc().splitlines():
            click.echo(printable(line), err=True)
        return ExitCode.PROBLEM
