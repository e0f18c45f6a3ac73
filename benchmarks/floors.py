"""The floors: ratios within one run on one machine, to be passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .figures import Results

__all__ = ["FLOORS", "Floor"]

Measure = Callable[[Results], float | None]


@dataclass(frozen=True, slots=True)
class Floor:
    """One floor.

    Attributes:
        work: what it is about.
        text: what is demanded.
        measure: the figure, None where something it needs wasn't measured.
        least, most: its bound, one of them.
    """

    work: str
    text: str
    measure: Measure
    least: float | None = None
    most: float | None = None

    def holds(self, figure: float) -> bool:
        if self.least is not None:
            return figure >= self.least
        assert self.most is not None
        return figure <= self.most

    def cells(self, results: Results) -> list[str]:
        """A table's row: what is demanded, the bound, what was measured, whether it holds."""
        figure = self.measure(results)
        if figure is None:
            return [self.text, self._bound, "not measured", "?"]
        return [self.text, self._bound, self._shown(figure), self._verdict(figure)]

    @property
    def _bound(self) -> str:
        return f"at least {self.least:,g}" if self.least is not None else f"at most {self.most:,g}"

    def _shown(self, figure: float) -> str:
        """With so many digits that anyone sees on which side of the floor it is."""
        digits = max(3, len(str(int(figure))))
        while self.holds(float(f"{figure:.{digits}g}")) != self.holds(figure):
            digits += 1
        return f"{figure:,.{digits}g}"

    def _verdict(self, figure: float) -> str:
        """Whether it holds, and if not, by how much."""
        if self.holds(figure):
            return "yes"
        bound = self.least if self.least is not None else self.most
        assert bound
        percent = 100 * abs(figure / bound - 1)
        much = f"{percent:,.0f}" if percent >= 10 else f"{percent:.2g}"
        return f"no, {much} % {'short' if self.least is not None else 'over'}"


_SHORT = {
    "ours-starlette": "Starlette",
    "ours-starlette-newer": "Starlette on Python 3.12+",
    "ours-flask-sync": "Flask on sync",
    "ours-flask-gthread": "Flask on gthread",
    "ours-flask-gevent": "Flask on gevent",
    "sse-starlette": "sse-starlette, a pubsub a client",
    "broadcaster": "sse-starlette, broadcaster",
    "fastapi": "FastAPI native",
    "flask-sse-gthread": "flask-sse on gthread",
    "flask-sse-gevent": "flask-sse on gevent",
    "nchan": "nchan",
    "bare": "the bare limit",
    "flask-sse": "flask-sse",
}
_RATE = "deliveries_per_cpu"
_HANDED_OVER = ("ours-flask-sync", "ours-flask-gthread")


def _figure(work: str, name: str, figure: str, scale: float = 1.0) -> Measure:
    def measure(results: Results) -> float | None:
        found = results.get(work, name, figure)
        return None if found is None else found * scale

    return measure


def _ratio(above: Measure, below: Measure) -> Measure:
    def measure(results: Results) -> float | None:
        over, under = above(results), below(results)
        return over / under if over is not None and under else None

    return measure


def _against(
    work: str, ours: str, theirs: str, figure: str = _RATE, *, what: str = "", **bound: float
) -> Floor:
    text = f"{_SHORT[ours]}{what} ÷ {_SHORT[theirs]}"
    measure = _ratio(_figure(work, ours, figure), _figure(work, theirs, figure))
    return Floor(work, text, measure, **bound)


def _fan_out() -> Iterator[Floor]:
    for theirs, least in (
        ("sse-starlette", 2.7),
        ("broadcaster", 2.3),
        ("fastapi", 10),
        ("nchan", 0.7),
    ):
        yield _against("fanout", "ours-starlette", theirs, least=least)
    yield _against("fanout", "ours-starlette-newer", "nchan", least=0.9)
    for ours in _HANDED_OVER:
        for theirs, least in (("flask-sse-gthread", 15), ("nchan", 1.4), ("bare", 1)):
            yield _against("fanout", ours, theirs, least=least)
    for theirs, least in (("flask-sse-gevent", 7), ("nchan", 1)):
        yield _against("fanout", "ours-flask-gevent", theirs, least=least)


def _latency() -> Iterator[Floor]:
    for ours, most in (
        ("ours-flask-sync", 1.2),
        ("ours-flask-gthread", 1.2),
        ("ours-starlette", 2.5),
    ):
        yield _against("fanout", ours, "nchan", "p99", what=", p99 latency", most=most)


def _many() -> Iterator[Floor]:
    for ours, theirs, least in (
        ("ours-starlette", "sse-starlette", 1.5),
        ("ours-flask-sync", "sse-starlette", 4),
        ("ours-starlette", "bare", 0.3),
        ("ours-flask-sync", "bare", 0.9),
    ):
        yield _against("many", ours, theirs, least=least)


def _bursts() -> Iterator[Floor]:
    for ours in ("ours-starlette", "ours-flask-sync"):
        # A read of the listener may end within a burst: not every time.
        yield Floor(
            "bursts",
            f"{_SHORT[ours]}: writes a client and burst",
            _figure("bursts", ours, "writes_per_batch"),
            most=1.1,
        )
        yield Floor(
            "bursts",
            f"{_SHORT[ours]} ÷ the same at fan-out, one by one",
            _ratio(_figure("bursts", ours, _RATE), _figure("fanout", ours, _RATE)),
            least=5,
        )
    yield _against("bursts", "ours-flask-sync", "nchan", least=3)
    yield _against("bursts", "ours-starlette", "sse-starlette", least=20)


def _resume() -> Iterator[Floor]:
    for ours in ("ours-starlette", "ours-flask-sync", "ours-flask-gthread", "ours-flask-gevent"):
        yield Floor(
            "resume",
            f"{_SHORT[ours]} ÷ the same at fan-out, right after",
            _figure("resume", ours, "times_fan_out"),
            least=5,
        )


def _idle() -> Iterator[Floor]:
    for ours, most in (("ours-starlette", 12), *((name, 3) for name in _HANDED_OVER)):
        text = f"{_SHORT[ours]}: KB a client"
        yield Floor("idle", text, _figure("idle", ours, "pss_per_client", 1 / 1024), most=most)
    yield _against(
        "idle", "ours-starlette", "sse-starlette", "pss_per_client", what=", memory", most=0.2
    )
    for ours in ("ours-starlette", *_HANDED_OVER):
        yield _against(
            "idle", ours, "sse-starlette", "accept_cpu", what=", CPU to accept", most=0.1
        )
    for ours in ("ours-starlette", *_HANDED_OVER, "ours-flask-gevent"):
        text = f"{_SHORT[ours]}: Pub/Sub connections, 4,000 clients"
        yield Floor("idle", text, _figure("idle", ours, "pubsub_connections"), most=1)


def _sending() -> Iterator[Floor]:
    one, theirs = (_figure("sending", name, "sends_per_second") for name in ("ours", "flask-sse"))
    yield Floor("sending", "one by one ÷ flask-sse", _ratio(one, theirs), least=6)
    many = _figure("sending", "ours-events", "sends_per_second")
    yield Floor("sending", "send_events, events a second", many, least=40_000)


def _growth() -> Iterator[Floor]:
    for ours in ("ours-starlette", "ours-flask-sync"):
        text = f"{_SHORT[ours]}: cost of a delivery, 4,000 clients ÷ 100"
        yield Floor("growth", text, _figure("growth", ours, "growth"), most=1.3)


FLOORS = tuple(
    floor
    for floors in (_fan_out, _latency, _many, _bursts, _resume, _idle, _sending, _growth)
    for floor in floors()
)
