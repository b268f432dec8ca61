"""Lines in panels → **charts** → an SVG file that needs nothing else, neither fonts nor scripts."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Told apart by colour-blind eyes too (Okabe and Ito, 2008); further lines repeat them dashed."""

_DASHES = ("", "6 3", "2 2", "8 2 2 2")
_PANEL_WIDTH, _PANEL_HEIGHT = 400, 260
_LEFT, _TOP, _RIGHT, _BOTTOM = 56, 28, 16, 44
_LEGEND_ROW, _LETTER = 18, 7
_TICKS = 5


class Line(NamedTuple):
    """One line; its style follows its place in the panel."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    across: str
    """Name and unit of the horizontal axis."""

    lines: Sequence[Line]

    up: tuple[float, float] | None = None
    """Ends of the vertical axis; by default those of the lines."""


class Inks(NamedTuple):
    """Colours of what is not a line; by default those of a sheet of paper."""

    text: str = "black"
    rule: str = "#ddd"
    ground: str = "white"


PAPER = Inks()


class _Axis(NamedTuple):
    """Numbers → pixels."""

    low: float
    high: float
    first: float
    last: float

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)


def draw(rows: Sequence[Sequence[Panel]], legend: bool = True, inks: Inks = PAPER) -> str:
    """Draw panels in a grid, with one legend for all of them on the right.

    Args:
        rows: each of equally many panels; a line has the same place in all of them.
        legend: whether it is drawn.
        inks: within a page they may be the page's own, as ``currentColor``.
    """
    labels = list(dict.fromkeys(line.label for row in rows for panel in row for line in panel.lines))
    panels_width = _PANEL_WIDTH * max(len(row) for row in rows)
    width, height, listed = panels_width, _PANEL_HEIGHT * len(rows), labels if legend else []
    if legend:
        width += 50 + _LETTER * max((len(label) for label in labels), default=0)
        height = max(height, _LEGEND_ROW * (len(labels) + 2))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="{inks.text}">',
        f'<rect width="{width}" height="{height}" fill="{inks.ground}"/>',
    ]
    for down, row in enumerate(rows):
        for along, panel in enumerate(row):
            parts.append(f'<g transform="translate({along * _PANEL_WIDTH} {down * _PANEL_HEIGHT})">')
            parts += [*_panel(panel, labels, inks.rule), "</g>"]
    for place, label in enumerate(listed):
        y = _TOP + _LEGEND_ROW * place
        parts.append(f'<path d="M{panels_width + 4} {y}h28" {_style(place)}/>')
        parts.append(_text(panels_width + 38, y + 4, label))
    return "\n".join([*parts, "</svg>", ""])


def ticks(low: float, high: float) -> list[float]:
    """Choose round numbers in [low, high], some five of them."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [
        round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def _panel(panel: Panel, labels: Sequence[str], rule: str) -> list[str]:
    xs = [x for line in panel.lines for x in line.xs]
    ys = [y for line in panel.lines for y in line.ys]
    right, bottom = _PANEL_WIDTH - _RIGHT, _PANEL_HEIGHT - _BOTTOM
    across = _Axis(*_range([0.0, *xs]), _LEFT, right)
    up = _Axis(*(panel.up or _range(ys)), bottom, _TOP)
    parts = [_text(_LEFT, _TOP - 10, panel.title, "font-weight='bold'")]
    for tick in ticks(up.low, up.high):
        parts.append(f'<path d="M{_LEFT} {up(tick)}H{right}" stroke="{rule}"/>')
        parts.append(_text(_LEFT - 6, up(tick) + 4, f"{tick:g}", "text-anchor='end'"))
    for tick in ticks(across.low, across.high):
        parts.append(_text(across(tick), bottom + 16, f"{tick:g}", "text-anchor='middle'"))
    parts.append(_text((_LEFT + right) / 2, bottom + 34, panel.across, "text-anchor='middle'"))
    for line in panel.lines:
        points = " ".join(f"{across(x)},{up(y)}" for x, y in zip(line.xs, line.ys, strict=True))
        parts.append(f'<polyline points="{points}" {_style(labels.index(line.label))}/>')
    return parts


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _style(place: int) -> str:
    dash = _DASHES[place // len(COLOURS) % len(_DASHES)]
    return f'fill="none" stroke-width="1.8" stroke="{COLOURS[place % len(COLOURS)]}"' + (
        f' stroke-dasharray="{dash}"' if dash else ""
    )


def _text(x: int | float, y: int | float, content: str, how: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" {how}>{escape(content)}</text>'
