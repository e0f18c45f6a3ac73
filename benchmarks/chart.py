"""The chart: bars, as SVG, in tones that stand on light and on dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "Panel", "draw"]

_WIDTH, _NAMES, _VALUES = 830, 296, 62
_BAR, _STEP, _TITLE, _LEGEND = 18, 27, 46, 34
_STYLE = """\
    text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #7a8594; }
    .title { font-size: 16px; font-weight: 600; }
    .name { text-anchor: end; }
    .is-ours { fill: #14a094; font-weight: 600; }
    .ours { fill: #14a094; }
    .peer { fill: #8b97a8; }
    .limit { fill: #8b97a8; fill-opacity: .3; stroke: #8b97a8; stroke-dasharray: 4 3; }"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: its name, its length, what stands behind it, and what it is of."""

    name: str
    value: float
    label: str
    kind: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars on one scale."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        return _TITLE + _STEP * len(self.bars)


def draw(title: str, description: str, panels: Sequence[Panel]) -> str:
    """The picture."""
    height = sum(panel.height for panel in panels) + _LEGEND
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        'aria-labelledby="title desc">',
        f'  <title id="title">{escape(title)}</title>',
        f'  <desc id="desc">{escape(description)}</desc>',
        "  <style>",
        _STYLE,
        "  </style>",
    ]
    top = 0
    for panel in panels:
        lines += _panel(panel, top)
        top += panel.height
    lines += _legend(title, top)
    return "\n".join([*lines, "</svg>", ""])


def _legend(title: str, top: int) -> Iterator[str]:
    yield (
        f'  <text x="0" y="{top + 20}"><tspan class="is-ours">streamy-redis</tspan>'
        f"<tspan> {escape(title)}</tspan></text>"
    )


def _panel(panel: Panel, top: int) -> Iterator[str]:
    yield f'  <text class="title" x="0" y="{top + 26}">{escape(panel.title)}</text>'
    longest = max(bar.value for bar in panel.bars)
    for i, bar in enumerate(panel.bars):
        y = top + _TITLE + i * _STEP
        width = max(2.0, bar.value / longest * (_WIDTH - _NAMES - _VALUES))
        is_ours = " is-ours" if bar.kind == "ours" else ""
        yield (
            f'  <text class="name{is_ours}" x="{_NAMES - 10}" y="{y + 14}">'
            f"{escape(bar.name)}</text>"
        )
        yield (
            f'  <rect class="{bar.kind}" x="{_NAMES}" y="{y}" width="{width:.1f}" '
            f'height="{_BAR}" rx="3"/>'
        )
        yield (
            f'  <text class="value{is_ours}" x="{_NAMES + width + 8:.1f}" y="{y + 14}">'
            f"{escape(bar.label)}</text>"
        )
