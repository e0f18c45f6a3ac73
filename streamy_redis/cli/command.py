"""Commands: what is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..exceptions import StreamyError
from .failure import ExitCode, Failure
from .output import leave_output

__all__ = ["Command", "command", "examples"]


class Command(click.Command):
    """Turns what a command raises into messages and exit codes, at one place."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StreamyError as exc:
            raise Failure.of(exc) from exc
        except BrokenPipeError:
            leave_output()
            ctx.exit(ExitCode.BROKEN_PIPE)
        except KeyboardInterrupt:
            # click would write an empty line.
            ctx.exit(ExitCode.INTERRUPTED)


def command(*shown: str) -> Callable[[Callable[..., Any]], Command]:
    """A command named like its function, with examples."""
    return click.command(cls=Command, epilog=examples(*shown))


def examples(*lines: str) -> str:
    """The end of a help text; click leaves a paragraph behind \\b as it is."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
