"""Runs the works, one contestant after another, and says what came out.

scripts/bench                                 everything; writes docs/performance.md and the floors
scripts/bench fanout many                     these works only; writes nothing
scripts/bench fanout --only ours-flask-sync   one contestant
scripts/bench --list                          names of works and contestants
scripts/bench --report                        writes them again, from the last full run
scripts/bench --upgrade                       takes the newest releases of the peers first
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from .contestants import CONTESTANTS, ROOT
from .cores import pin, rest_cores
from .figures import Results, Row
from .report import floors_text, work_text, write_docs
from .sending import SENDERS, measure_sending
from .serving import ServingError
from .stage import Stage, StageError
from .versions import versions
from .works import WORKS, Pace

_SAVED = ROOT / ".venv-bench" / "results.json"
_SENDING = "sending"
_WORK_NAMES = (*WORKS, _SENDING)
# Most floors compare it, and two runs of one server differ by a tenth.
_FANOUT_PASSES = 3


def main() -> None:
    options = _options()
    if options.list:
        _list()
    elif options.report:
        _say_written(write_docs(Results.load(_SAVED)))
    else:
        _run(options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("works", nargs="*", metavar="WORK", help=", ".join(_WORK_NAMES))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contestants, as in --list")
    parser.add_argument(
        "--seconds", type=float, default=Pace().seconds, help="for which events are sent"
    )
    parser.add_argument("--clients", type=float, default=1.0, metavar="PART", help="of all clients")
    parser.add_argument(
        "--repeat", type=int, help="runs of each row, of which the median counts; 1, at fan-out 3"
    )
    parser.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--report", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    for given, known in (
        (options.works, _WORK_NAMES),
        (options.only or [], (*CONTESTANTS, *SENDERS)),
    ):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    return options


def _list() -> None:
    print("works:      ", ", ".join(_WORK_NAMES))
    print("contestants:", ", ".join(CONTESTANTS))


def _run(options: argparse.Namespace) -> None:
    begun_at = time.monotonic()
    results = Results(versions=versions())
    print(", ".join(f"{name} {version}" for name, version in results.versions.items()))
    pin(rest_cores())
    pace = Pace(options.seconds, options.clients)
    with Stage() as stage:
        for work in options.works or _WORK_NAMES:
            names = _contestants(work, options.only)
            count = options.repeat or (_FANOUT_PASSES if work == "fanout" else 1)
            passes = [[_row(stage, work, name, pace) for name in names] for _ in range(count)]
            results.rows += [_median(rows) for rows in zip(*passes, strict=True)]
            if names:
                print(f"\n{work_text(results, work)}", flush=True)
    results.seconds = time.monotonic() - begun_at
    is_full = not (options.works or options.only) and pace == Pace()
    print(f"\n{floors_text(results, is_full=is_full)}\n\n{results.seconds:.0f} seconds")
    if is_full:
        results.save(_SAVED)
        _say_written(write_docs(results))


def _contestants(work: str, only: Sequence[str] | None) -> list[str]:
    names = list(SENDERS) if work == _SENDING else list(WORKS[work].contestants)
    return [name for name in names if only is None or name in only]


def _row(stage: Stage, work: str, name: str, pace: Pace) -> Row:
    if work == _SENDING:
        return measure_sending(name, stage.redis_url, min(2.0, pace.seconds))
    contestant = CONTESTANTS[name]
    if absence := contestant.absence():
        return Row(work, name, {}, absence)
    try:
        return Row(work, name, WORKS[work].perform(stage, contestant, pace))
    except (StageError, ServingError) as error:
        print(f"{work} {name}: {error}", flush=True)
        return Row(work, name, {}, str(error))


def _median(rows: Sequence[Row]) -> Row:
    """One row of several; the failure, if all failed."""
    good = [row for row in rows if row.figures]
    if len(good) < 2:
        return good[0] if good else rows[0]
    figures = {name: median(row.figures[name] for row in good) for name in good[0].figures}
    return Row(good[0].work, good[0].contestant, figures)


def _say_written(paths: Sequence[Path]) -> None:
    print("written:", ", ".join(str(path.relative_to(ROOT)) for path in paths))


if __name__ == "__main__":
    main()
