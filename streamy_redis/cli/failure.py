"""Failures: an exit code for scripts, and one line for people."""

from __future__ import annotations

import enum

import click

from ..exceptions import InvalidEvent, RedisUnavailable, StreamEnded, StreamyError
from .output import printable

__all__ = ["ExitCode", "Failure", "show", "usage_error"]


class ExitCode(enum.IntEnum):
    """What happened, for a shell."""

    DONE = 0
    # The doctor found a problem, or something else failed.
    PROBLEM = 1
    # An argument breaks a rule, or an extra is missing.
    USAGE = 2
    # Redis can't be reached, or refuses.
    REDIS_UNAVAILABLE = 3
    STREAM_ENDED = 4
    NO_STREAM = 5
    # As shells give them: 128 and the number of the signal, SIGINT and SIGPIPE.
    INTERRUPTED = 130
    BROKEN_PIPE = 141


class Failure(click.ClickException):
    """Raised when a command fails: one line that says what to do, and an exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.PROBLEM) -> None:
        super().__init__(message)
        self.code = code

    @classmethod
    def of(cls, error: StreamyError, *more: str) -> Failure:
        """What a command says of an error of ours, and more."""
        if isinstance(error, StreamEnded):
            advice = "`streamy-redis delete` forgets the end"
            said = [f"stream {error.stream_id!r} has ended", advice]
            return cls("; ".join([*said, *more]), ExitCode.STREAM_ENDED)
        if isinstance(error, RedisUnavailable):
            said = [str(error).removesuffix("."), "`streamy-redis doctor` says more"]
            return cls("; ".join([*said, *more]), ExitCode.REDIS_UNAVAILABLE)
        assert isinstance(error, InvalidEvent)
        return cls("; ".join([str(error), *more]), ExitCode.USAGE)


def usage_error(message: str) -> click.UsageError:
    """For arguments that the command itself finds wrong."""
    return click.UsageError(message, click.get_current_context())


def show(error: click.ClickException) -> int:
    """Writes one line on standard error, and returns the exit code."""
    # What Redis, the system and click say may have several lines, and end like a sentence.
    message = printable(" ".join(error.format_message().split())).removesuffix(".")
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "streamy-redis"
        message += f"; see `{path} --help`"
    click.echo(f"Error: {message}", err=True)
    return error.code if isinstance(error, Failure) else error.exit_code
