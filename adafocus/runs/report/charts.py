"""Computes the coordinates of a report's charts, which the template writes as inline SVG in the colors of the page.

matplotlib, which makes the plots of `adafocus compare`, would take a second or more at the end of every run, and its
text would not change color between the light and the dark page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 440, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 12, 42
MOST_POINTS = 300  # points of a line; longer curves are thinned
COLORS = 8  # colors of the page; further series repeat them

Point = tuple[float, float]


@dataclass
class Series:
    """Points of one name: a line, or markers that may have an interval (low, high) of y."""

    name: str
    points: Sequence[Point]
    line: bool = True
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass
class Mark:
    """A marker at (x, y) with an error bar from `low` to `high` in y."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None


@dataclass
class Drawn:
    """A series in the coordinates of the SVG image."""

    name: str
    color: int
    path: str = ""
    marks: list[Mark] = field(default_factory=list)


@dataclass
class Chart:
    """A chart in the coordinates of the SVG image; ticks are (coordinate, text)."""

    title: str
    x_label: str
    y_label: str
    series: list[Drawn]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_text: Callable[[float], str] | None = None,
) -> Chart | None:
    """Makes a chart of some series; None if no point is finite. Costs that differ by a factor of 4 get a log axis.

    Args:
        title, x_label, y_label: text of the chart.
        series: the series to draw.
        x_text: formats the numbers of an x-axis of costs; None: a linear axis of other numbers.
    """
    known = [Series(one.name, list(one.points), one.line, one.intervals) for one in series]
    xs = [x for one in known for x, y in one.points if math.isfinite(x) and math.isfinite(y)]
    ys = [y for one in known for x, y in one.points if math.isfinite(x) and math.isfinite(y)]
    ys += [end for one in known for interval in one.intervals if interval for end in interval if math.isfinite(end)]
    if not xs:
        return None
    logarithmic = x_text is not None and min(xs) > 0 and max(xs) > 4 * min(xs)
    bend = math.log10 if logarithmic else float
    across = _scale([bend(x) for x in xs], LEFT, WIDTH - RIGHT, margin=0.0 if x_text is None else 0.06)
    up = _scale(ys, HEIGHT - BOTTOM, TOP, margin=0.06)
    drawn = [_place(one, number % COLORS, lambda x: across(bend(x)), up) for number, one in enumerate(known)]
    x_ticks = _powers(min(xs), max(xs)) if logarithmic else _ticks(min(xs), max(xs))
    return Chart(
        title,
        x_label,
        y_label,
        drawn,
        [(across(bend(x)), (x_text or _number)(x)) for x in x_ticks],
        [(up(y), _number(y)) for y in _ticks(min(ys), max(ys))],
    )


def _place(series: Series, color: int, across: Callable[[float], float], up: Callable[[float], float]) -> Drawn:
    drawn = Drawn(series.name, color)
    points = [(x, y) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]
    if series.line:
        step = -(-len(points) // MOST_POINTS) if points else 1
        thinned = [*points[:-1:step], *points[-1:]]
        drawn.path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in thinned)
    if not series.line or len(points) == 1:  # a line through a single point would be invisible
        ends = list(series.intervals) or [None] * len(points)
        for (x, y), interval in zip(points, ends, strict=True):
            low, high = (None, None) if interval is None else (up(interval[0]), up(interval[1]))
            drawn.marks.append(Mark(across(x), up(y), f"{series.name}: {_number(y)}", low, high))
    return drawn


def _scale(values: Sequence[float], start: float, end: float, margin: float) -> Callable[[float], float]:
    low, high = min(values), max(values)
    spread = high - low or abs(high) or 1.0
    if high == low:
        low, high = low - spread / 2, high + spread / 2
    low, high = low - margin * spread, high + margin * spread
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Returns at most `most` round numbers within [low, high]."""
    if high == low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    """Returns 1, 2 and 5 times powers of ten within [low, high]; over a wide range only powers of ten."""
    factors = (1, 2, 5) if high < 100 * low else (1,)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
    return [value for value in found if low * 0.98 <= value <= high * 1.02]


def _number(value: float) -> str:
    if 0 < abs(value) < 0.001:
        return f"{value:.0e}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
