"""How scripts/bench prints a floor: what is asked, what was measured, whether it holds."""

from __future__ import annotations

import pytest

from benchmarks.figures import Results
from benchmarks.floors import Floor


def cells(figure: float | None, **bound: float) -> list[str]:
    floor = Floor("fanout", "ours ÷ theirs", lambda results: figure, **bound)
    return floor.cells(Results())


@pytest.mark.parametrize(
    ("figure", "bound", "shown"),
    [
        (1.43, {"least": 1.4}, ["at least 1.4", "1.43", "yes"]),
        (1.4, {"least": 1.4}, ["at least 1.4", "1.4", "yes"]),
        (1.3998, {"least": 1.4}, ["at least 1.4", "1.3998", "no, 0.014 % short"]),
        (10.2, {"least": 15}, ["at least 15", "10.2", "no, 32 % short"]),
        (20.1, {"most": 12}, ["at most 12", "20.1", "no, 68 % over"]),
        (1.00004, {"most": 1}, ["at most 1", "1.00004", "no, 0.004 % over"]),
        (39_999.7, {"least": 40_000}, ["at least 40,000", "39,999.7", "no, 0.00075 % short"]),
        (36_403.4, {"least": 40_000}, ["at least 40,000", "36,403", "no, 9 % short"]),
        (500, {"most": 1}, ["at most 1", "500", "no, 49,900 % over"]),
        (None, {"least": 2}, ["at least 2", "not measured", "?"]),
    ],
)
def test_a_floor_says_on_which_side_of_it_the_figure_is(
    figure: float | None, bound: dict[str, float], shown: list[str]
):
    assert cells(figure, **bound) == ["ours ÷ theirs", *shown]
