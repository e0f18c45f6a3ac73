"""What was measured: figures by name, of one contestant at one work."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

__all__ = ["Figures", "Results", "Row"]

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant at one work; without figures, and with the reason, where it failed."""

    work: str
    contestant: str
    figures: Figures
    failure: str = ""


@dataclass(slots=True)
class Results:
    """All rows of a run, and the versions of what took part."""

    rows: list[Row] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def get(self, work: str, contestant: str, figure: str) -> float | None:
        """A figure, None where it wasn't measured."""
        for row in self.rows:
            if (row.work, row.contestant) == (work, contestant):
                return row.figures.get(figure)
        return None

    def of(self, work: str) -> list[Row]:
        return [row for row in self.rows if row.work == work]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        found = json.loads(path.read_text())
        rows = [Row(**row) for row in found["rows"]]
        return cls(rows, found["versions"], found["seconds"])
