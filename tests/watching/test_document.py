"""docs/watching.md has every figure, every metric and every log line, and no others."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from streamy_redis import StreamManager, StreamStats
from streamy_redis.core.subscriber import CloseReason
from streamy_redis.prometheus import observe
from tests.readme.document import EXAMPLES, PAGES, ROOT, table

PAGE = PAGES["docs/watching.md"]
PACKAGE = ROOT / "streamy_redis"
LEVELS = {"exception": "ERROR"}


class LogLine(NamedTuple):
    text: str
    logger: str
    level: str


def logged() -> Iterator[LogLine]:
    """Every call of a logger in the package, as the code has it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        loggers = [
            call.args[0].value
            for call in ast.walk(tree)
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("getLogger")
        ]
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("_log."):
                level = call.func.attr
                yield LogLine(text_of(call.args[0]), loggers[0], LEVELS.get(level, level.upper()))


def text_of(argument: ast.expr) -> str:
    return argument.value if isinstance(argument, ast.Constant) else ast.unparse(argument)


# werkzeug's own lines, which the demo passes on.
LOGGED = set(logged()) - {LogLine("message", "streamy_redis.demo", "DEBUG")}


def test_every_log_line_is_in_the_table_and_no_other():
    rows = table("line", PAGE)

    assert {LogLine(*(cell.strip("`") for cell in row[:3])) for row in rows} == LOGGED
    assert len(rows) == len(LOGGED) > 10


def test_every_logger_is_named_after_its_module():
    assert {line.logger.partition(".")[0] for line in LOGGED} == {"streamy_redis"}


def test_every_log_line_is_explained():
    assert all(len(row) == 5 and all(row) for row in table("line", PAGE))


def test_every_figure_and_every_reason_is_in_its_table():
    fields = [field.name for field in dataclasses.fields(StreamStats)]

    assert [row[0].strip("`") for row in table("figure", PAGE)] == fields
    assert [row[0].strip("`") for row in table("reason", PAGE)] == [r.value for r in CloseReason]


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    observe(StreamManager("memory://"), registry)
    return registry


def names(registry: CollectorRegistry) -> set[str]:
    """As they stand at /metrics, without what a histogram is made of."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in registry.collect()
    }


def test_every_metric_is_in_the_table_with_its_type(registry: CollectorRegistry):
    shown = {re.match(r"`(\w+)", row[0])[1]: row[1] for row in table("metric", PAGE)}

    assert set(shown) == names(registry)
    types = {family.name: family.type for family in registry.collect()}
    assert all(types[name.removesuffix("_total")] == shown[name] for name in shown)


def test_alerts_ask_for_metrics_that_there_are(registry: CollectorRegistry):
    asked = set(re.findall(r"streamy_redis_\w+", (EXAMPLES / "alerts.yml").read_text()))

    assert {name.removesuffix("_bucket") for name in asked} <= names(registry)
    assert len(asked) == 4
