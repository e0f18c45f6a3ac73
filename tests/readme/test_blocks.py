"""No page shows a block of code that no test runs."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .document import EXAMPLES, PAGES, ROOT, Block, blocks, commands, without_blocks

COMMANDS = "tests/readme/test_commands.py"
JOBS = "tests/integrations/test_jobs.py::test_a_job_reports_its_progress_and_its_end"
LLM = "tests/integrations/test_llm.py::test_every_page_shows_the_whole_text_whenever_it_opens"
BOARDS = "tests/integrations/test_boards.py::test_a_job_reports_its_progress_on_both_boards"
README_APPS = (
    "tests/readme/test_examples.py::test_a_browser_receives_what_the_job_sends_until_the_end"
)

# A new line of a shell needs one of these: pages, how the line begins, and the test that runs it.
RUN_BY = [
    ("*", "pip install ", f"{COMMANDS}::test_an_install_command_names_what_there_is"),
    ("*", "export (STREAMY|REDIS)_", f"{COMMANDS}::test_a_variable_that_is_set_is_read"),
    (
        "*",
        "scripts/demo",
        "tests/integrations/test_demo.py::test_serves_both_boards_and_stops_everything_on_ctrl_c",
    ),
    ("CONTRIBUTING.md", "scripts/docs", "tests/readme/test_site.py::test_every_page_is_there"),
    ("README.md", "gunicorn |uvicorn ", README_APPS),
    (
        "docs/quick-start.md",
        "gunicorn |python |kill |streamy-redis ",
        f"{COMMANDS}::test_the_quick_start_works_as_it_is_written",
    ),
    ("docs/quick-start.md", "uvicorn ", f"{COMMANDS}::test_a_server_starts_as_shown"),
    (
        "docs/deploying.md",
        "gunicorn |uvicorn |granian |hypercorn ",
        f"{COMMANDS}::test_a_server_starts_as_shown",
    ),
    ("docs/deploying.md", "ulimit ", f"{COMMANDS}::test_the_limit_can_be_raised"),
    (
        "docs/deploying.md",
        "redis-cli ",
        "tests/readme/test_deploying.py::test_a_history_takes_the_memory_that_is_told",
    ),
    (
        "docs/deploying.md",
        "streamy-redis doctor https://",
        "tests/cli/test_doctor.py::test_nginx_as_it_is_does_no_harm",
    ),
    (
        "docs/how-it-works.md",
        "streamy-redis |redis-cli |curl ",
        f"{COMMANDS}::test_what_lies_in_redis_and_reaches_the_browser_is_as_shown",
    ),
    (
        "docs/command-line.md",
        "streamy-redis --help",
        "tests/cli/test_commands.py::test_help_names_every_command",
    ),
    (
        "docs/command-line.md",
        "streamy-redis (send|listen|end|info|delete) |tail ",
        f"{COMMANDS}::test_the_command_line_does_what_is_shown",
    ),
    (
        "docs/command-line.md",
        "streamy-redis doctor$",
        "tests/cli/test_doctor.py::test_a_redis_without_fault_has_no_problem",
    ),
    (
        "docs/command-line.md",
        "streamy-redis doctor https://",
        "tests/cli/test_doctor.py::test_an_endpoint_that_streams_has_no_problem",
    ),
    ("docs/command-line.md", "eval ", "tests/cli/test_commands.py::test_makes_a_completion_script"),
    (
        "docs/watching.md",
        "export PROMETHEUS_MULTIPROC_DIR=|gunicorn ",
        "tests/watching/test_prometheus.py"
        "::test_workers_of_gunicorn_add_up_and_the_gauges_of_the_dead_drop_out",
    ),
    (
        "integrations/nginx/*",
        r"\(cd |sed |nginx ",
        "tests/integrations/test_nginx.py::test_a_rolling_restart_loses_nothing",
    ),
    ("integrations/celery-jobs/*", "celery |gunicorn ", JOBS),
    ("integrations/rq-jobs/*", "python |gunicorn ", JOBS),
    ("integrations/fastapi-llm/*", "python |uvicorn ", LLM),
    ("integrations/gunicorn-flask/*", "python |gunicorn ", BOARDS),
    ("integrations/uvicorn-starlette/*", "python |uvicorn ", BOARDS),
]
# What prints a block of text.
PRINTED_BY = [
    (
        "docs/command-line.md",
        r"\d+-2-\w+  message  hello|{\"stream_id",
        f"{COMMANDS}::test_the_command_line_does_what_is_shown",
    ),
    (
        "docs/command-line.md",
        r"ok +redis connection .*\n.*\nproblem +redis permissions",
        "tests/cli/test_doctor.py::test_a_missing_permission_is_named_with_the_line_that_grants_it",
    ),
    (
        "docs/command-line.md",
        r"ok +redis delivery .*\nproblem +endpoint status",
        "tests/cli/test_doctor.py::test_an_nginx_that_buffers_is_found",
    ),
    (
        "docs/how-it-works.md",
        r"\d+-1\nframe|retry: ",
        f"{COMMANDS}::test_what_lies_in_redis_and_reaches_the_browser_is_as_shown",
    ),
    (
        "docs/security.md",
        "ACL SETUSER ",
        "tests/security/test_least_privilege.py::test_the_documented_user_can_do_everything",
    ),
    (
        "docs/testing.md",
        "GET /events/job-1: ",
        "tests/testing/test_document.py::test_what_is_missing_is_told_as_shown",
    ),
    ("docs/security.md", "rediss://", "tests/security/test_tls.py::test_threads_send_and_receive"),
]
# Lines that can't be run inside of the tests: pages, how the line begins, and why.
NOT_RUN = [
    ("*", "scripts/test", "it runs the tests"),
    ("*", "STREAMY_SOAK_SECONDS=300 scripts/test", "it runs the tests"),
    ("*", "scripts/check", "CI runs it"),
    ("*", "scripts/bench", "it needs the machine for itself for ten minutes"),
    ("CONTRIBUTING.md", "docker compose", "CI has no Docker"),
    ("integrations/nginx/*", r" *docker compose |for replica |done$", "CI has no Docker"),
]

Entry = tuple[str, str, str]

EXAMPLE_FILES = [
    path for path in EXAMPLES.rglob("*") if path.suffix in (".py", ".html", ".js", ".conf")
]


def _texts_of_tests() -> Iterator[str]:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


NAMED_BY_TESTS = {name for text in _texts_of_tests() for name in re.split("[/: ]", text)}


def entries(table: list[Entry], page: str, text: str) -> list[Entry]:
    return [e for e in table if fnmatch.fnmatch(page, e[0]) and re.match(e[1], text)]


LINES = sorted({(page, line) for page, text in PAGES.items() for line in commands(text)})
TEXTS = [
    (page, block)
    for page, text in PAGES.items()
    for block in blocks(text)
    if block.language == "text"
]


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_in_blocks_that_tests_find(page: str):
    assert not re.search("```|~~~", without_blocks(PAGES[page]))


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_line_of_a_shell_is_run(page: str, line: str):
    assert entries(RUN_BY + NOT_RUN, page, line), "say in RUN_BY which test runs it"


@pytest.mark.parametrize(("page", "block"), TEXTS, ids=str)
def test_a_text_is_what_something_prints(page: str, block: Block):
    assert entries(PRINTED_BY, page, block.text), "say in PRINTED_BY which test compares it"


def test_no_entry_is_left_over():
    used = [e for page, line in LINES for e in entries(RUN_BY + NOT_RUN, page, line)]
    used += [e for page, block in TEXTS for e in entries(PRINTED_BY, page, block.text)]

    assert [e for e in RUN_BY + NOT_RUN + PRINTED_BY if e not in used] == []


@pytest.mark.parametrize("test", sorted({test for _, _, test in RUN_BY + PRINTED_BY}))
def test_what_runs_it_is_a_test(test: str):
    path, _, name = test.partition("::")

    assert name in names_of_tests(ROOT / path)


@pytest.mark.parametrize("example", EXAMPLE_FILES, ids=lambda path: path.name)
def test_an_example_is_run(example: Path):
    # An app is named by its module; and examples bring each other along.
    names = {example.name, example.stem} if example.suffix == ".py" else {example.name}
    of_others = {path.read_text() for path in EXAMPLE_FILES if path != example}

    assert names & NAMED_BY_TESTS or any(example.name in text for text in of_others)


def names_of_tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in tree.body if isinstance(node, functions)}
