"""docs/command-line.md shows commands and exit codes that there are."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from streamy_redis import cli
from tests.readme.document import PAGES, blocks, table

PAGE = PAGES["docs/command-line.md"]
LINES = [
    line
    for block in blocks(PAGE)
    if block.language == "sh"
    for line in block.text.splitlines()
    if re.search(r"\bstreamy-redis [a-z]", line)
]
EXAMPLES = [
    line.strip()
    for command in cli.streamy_redis.commands.values()
    for line in (command.epilog or "").splitlines()
    if "streamy-redis " in line
]


@pytest.mark.parametrize("line", [*LINES, *EXAMPLES])
def test_a_command_that_is_shown_is_accepted(line: str):
    # One command of a pipe or list, without what the shell does with its output.
    [part] = [p for p in re.split(r" \| | \|\| ", line) if p.startswith("streamy-redis ")]
    _, name, *arguments = shlex.split(re.split(r" [<>]|>/", part)[0])

    command = cli.streamy_redis.commands[name]
    with command.make_context(name, arguments) as context:
        assert isinstance(context, click.Context)


def test_the_exit_codes_are_those_of_the_command_line():
    shown = {int(row[0]) for row in table("exit code", PAGE)}

    assert shown == set(cli.ExitCode)


def test_all_commands_are_shown():
    assert all(f"streamy-redis {name}" in PAGE for name in cli.streamy_redis.commands)
