"""The columns of each work's table, and tables as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .figures import Results, Row

__all__ = ["COLUMNS", "Column", "markdown", "text", "times"]


@dataclass(frozen=True, slots=True)
class Column:
    """One figure.

    Attributes:
        title: with its unit.
        scale: from the figure's own unit to the title's.
        digits: behind the point.
        reference: whose figure the others are divided by where no absolute ones are shown.
        relative_title: the title then; a column without one is for the terminal only.
    """

    figure: str
    title: str
    scale: float = 1.0
    digits: int = 0
    reference: str | None = None
    relative_title: str = ""

    def absolute(self, row: Row) -> str:
        value = row.figures.get(self.figure)
        return "" if value is None else f"{value * self.scale:,.{self.digits}f}"

    def relative(self, row: Row, results: Results) -> str:
        value = row.figures.get(self.figure)
        if value is None:
            # It could not take part, or failed.
            return "-"
        if self.reference is None:
            return self.absolute(row)
        base = results.get(row.work, self.reference, self.figure)
        return times(value / base) if base else "-"


def times(ratio: float) -> str:
    """A ratio: two digits that count, or all before the point."""
    return (f"{ratio:.2g}" if ratio < 10 else f"{ratio:,.0f}") + " \N{MULTIPLICATION SIGN}"


_RATE = "deliveries per CPU-second"
_SPEED = Column("deliveries_per_cpu", _RATE, 1, 0, "sse-starlette", _RATE)


_LATENCIES = (
    Column("p50", "p50 ms", 1e3, 1, "nchan", "p50 latency"),
    Column("p99", "p99 ms", 1e3, 1, "nchan", "p99 latency"),
)
_PEAK = Column("pss_peak", "peak MB", 1e-6, 0, "sse-starlette", "peak memory")
_EACH = Column("pss_per_client", "KB a client", 1 / 1024, 1, None, "KB a client")
_ACCEPT = Column("accept_cpu", "accept CPU ms", 1e3, 2, "sse-starlette", "CPU to accept a client")
_CONNECTIONS = Column(
    "redis_connections", "Redis conns", 1, 0, None, "Redis connections of the server"
)
_SHARES = (
    Column("server_share", "server %", 100),
    Column("redis_share", "Redis %", 100),
    Column("load_share", "load %", 100),
    Column("late", "behind s", 1, 1),
)

COLUMNS: dict[str, Sequence[Column]] = {
    "fanout": (_SPEED, *_LATENCIES, _PEAK, _CONNECTIONS, *_SHARES),
    "many": (
        _SPEED,
        Column("p50", "p50 ms", 1e3, 1, "bare", "p50 latency"),
        Column("p99", "p99 ms", 1e3, 1, "bare", "p99 latency"),
        _PEAK,
        _CONNECTIONS,
        *_SHARES,
    ),
    "bursts": (
        _SPEED,
        *_LATENCIES,
        Column("writes_per_batch", "writes a burst", 1, 1, None, "writes a client and burst"),
        *_SHARES,
    ),
    "idle": (
        Column("clients", "clients", 1, 0, None, "clients"),
        _EACH,
        Column("pss_peak", "peak MB", 1e-6, 0),
        _ACCEPT,
        _CONNECTIONS,
        Column("pubsub_connections", "subscribed", 1, 0, None, "of these subscribed"),
    ),
    "resume": (
        Column("deliveries_per_cpu", _RATE),
        Column(
            "times_fan_out", "times fan-out", 1, 1, None, f"{_RATE}, the same server at fan-out = 1"
        ),
        Column("pss_peak", "peak MB", 1e-6, 0),
    ),
    "growth": (
        Column("cost_100", "µs at 100", 1e6, 1),
        Column("cost_1000", "µs at 1,000", 1e6, 1),
        Column("cost_4000", "µs at 4,000", 1e6, 1),
        Column("growth_1000", "1,000 ÷ 100", 1, 2, None, "1,000 clients ÷ 100"),
        Column("growth", "4,000 ÷ 100", 1, 2, None, "4,000 clients ÷ 100"),
    ),
    "sending": (
        Column("sends_per_second", "sends a second", 1, 0, "flask-sse", "sends a second"),
        Column("cpu_per_send", "CPU µs each", 1e6, 0, "flask-sse", "CPU each"),
    ),
}


def text(header: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """Columns side by side; the first ones, which are names, to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = (
            cell.ljust(width) if i < names else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """A table of Markdown; names to the left, figures to the right."""
    lines = [header, [*["---"] * names, *["---:"] * (len(header) - names)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
