"""What a run says: tables and floors, in the terminal and in the pages that show them; a chart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .chart import Bar, Panel, draw
from .contestants import CONTESTANTS, ROOT
from .figures import Results, Row
from .floors import FLOORS
from .sending import SENDERS
from .table import COLUMNS, markdown, text, times
from .works import WORKS

__all__ = ["floors_text", "work_text", "write_docs"]

_PAGE = ROOT / "docs" / "performance.md"
_FLOORS_PAGE = ROOT / "benchmarks" / "README.md"
_CHART = ROOT / "docs" / "performance.svg"
_CHART_TEXT = (
    "Deliveries per CPU-second of the server, as multiples of those of sse-starlette "
    "with a pubsub a client"
)
_BEGIN, _END = "<!-- begin: written by scripts/bench -->", "<!-- end -->"
# From so large a part of its core on the load client may have been what was measured.
_BUSY = 0.9
TITLES = {**{name: work.title for name, work in WORKS.items()}, "sending": "Sending"}


def label(row: Row) -> str:
    """The contestant, as tables name it."""
    if row.work == "sending":
        return SENDERS[row.contestant][0]
    contestant = CONTESTANTS[row.contestant]
    return f"streamy-redis: {contestant.label}" if contestant.is_ours else contestant.label


def work_text(results: Results, work: str) -> str:
    """One work's table, with absolute figures."""
    columns = COLUMNS[work]
    rows = [
        [label(row), *(column.absolute(row) for column in columns), _note(row)]
        for row in results.of(work)
    ]
    return text([TITLES[work], *(column.title for column in columns), ""], rows)


def _note(row: Row) -> str:
    if row.failure:
        return row.failure.splitlines()[0][:90]
    return "load client busy" if row.figures.get("load_share", 0.0) > _BUSY else ""


def floors_text(results: Results, *, is_full: bool) -> str:
    """Every floor with its figure, and yes or no; of a part of the works, those it reaches."""
    rows = [
        [floor.work, *floor.cells(results)]
        for floor in FLOORS
        if is_full or floor.measure(results) is not None
    ]
    return text(["Floors", "", "floor", "measured", "holds"], rows, names=2)


def write_docs(results: Results) -> Sequence[Path]:
    """Writes the measured part of docs/performance.md, in ratios, its chart, and the floors."""
    _write_measured(_PAGE, _sections(results))
    _write_measured(_FLOORS_PAGE, [_floors_markdown(results)])
    _CHART.write_text(_chart(results))
    return (_PAGE, _CHART, _FLOORS_PAGE)


def _write_measured(page: Path, sections: Iterable[str]) -> None:
    head, _, rest = page.read_text().partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    page.write_text("\n\n".join([head + _BEGIN, *sections, _END + tail]))


def _sections(results: Results) -> Iterator[str]:
    yield f"![{_CHART_TEXT}]({_CHART.name})"
    for work in dict.fromkeys(row.work for row in results.rows):
        yield f"### {TITLES[work]}"
        yield _work_markdown(results, work)
    yield "## The versions, and the machine"
    yield ", ".join(f"{name} {version}" for name, version in results.versions.items()) + "."


def _floors_markdown(results: Results) -> str:
    rows = [[TITLES[each.work].partition(":")[0], *each.cells(results)] for each in FLOORS]
    return markdown(["work", "what", "floor", "measured", "holds"], rows, names=2)


def _work_markdown(results: Results, work: str) -> str:
    columns = [column for column in COLUMNS[work] if column.relative_title]
    rows = [
        [label(row), *(column.relative(row, results) for column in columns)]
        for row in results.of(work)
    ]
    return markdown(["", *(column.relative_title for column in columns)], rows)


def _chart(results: Results) -> str:
    panels = [
        _panel(results, "fanout", "One stream, 500 clients: deliveries per CPU-second"),
        _panel(results, "many", "500 streams, one client each"),
    ]
    description = "; ".join(
        f"{panel.title}: " + ", ".join(f"{bar.name} {bar.label}" for bar in panel.bars)
        for panel in panels
    )
    return draw("and others, as multiples of sse-starlette, a pubsub a client", description, panels)


def _panel(results: Results, work: str, title: str) -> Panel:
    base = results.get(work, "sse-starlette", "deliveries_per_cpu") or 1.0
    bars = []
    for row in results.of(work):
        value = row.figures.get("deliveries_per_cpu")
        if value is not None:
            contestant = CONTESTANTS[row.contestant]
            bars.append(
                Bar(
                    contestant.label,
                    value,
                    times(value / base),
                    _kind(row.contestant),
                )
            )
    return Panel(title, sorted(bars, key=lambda bar: -bar.value))


def _kind(name: str) -> str:
    if CONTESTANTS[name].is_ours:
        return "ours"
    return "limit" if name.startswith("bare") else "peer"
