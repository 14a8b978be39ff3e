"""Line charts as inline SVG, drawn here: no library, no script, nothing fetched.

An agent is told by its colour, by its dashes and by its marker, so that no one of the three is
needed. Colours are classes (``c0`` to ``c7`` in style.css), because a page that forbids styles of
others has no style attributes of its own either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from textgym_agents.bench.report.markup import number, shown

Floats = NDArray[np.float64]

COLOURS, DASHES = 8, 4
# Of the picture, which the page scales; letters grow where the screen is small.
WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 50, 24, 34, 50
_MARKERS_ON_A_LINE = 5

# Paths around (0, 0), 4 to 5 units from it.
MARKERS = (
    "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",  # circle
    "m-3.6-3.6h7.2v7.2h-7.2z",  # square
    "m0-5 4.6 8.2h-9.2z",  # triangle
    "m0-5.2 4.6 5.2-4.6 5.2-4.6-5.2z",  # diamond
    "m0 5 4.6-8.2h-9.2z",  # triangle, on its tip
    "m-4-4 8 8m0-8-8 8",  # cross
    "m0-5v10m-5-5h10",  # plus
    "m-5 0 2.5-4.3h5l2.5 4.3-2.5 4.3h-5z",  # hexagon
)


@dataclass(frozen=True)
class Line:
    """One agent's line.

    Args:
        agent: its number, which is its colour, dash and marker.
        name: of the agent.
        x, y: `[n_points]`.
        low, high: `[n_points]`, of the band around it; NaN or None for no band.
        runs: thinner lines behind it, as pairs of x and y: the seeds.
        step: whether y holds until the next x, as in a share of runs.
    """

    agent: int
    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    runs: Sequence[tuple[Floats, Floats]] = ()
    step: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines in one coordinate system.

    Args:
        label: what the chart shows, for those who cannot see it.
        x_label, y_label: of the axes.
        lines: one an agent.
        levels: values of y with a name, drawn across: what is known.
        y_range: what is shown at least.
        x_format, y_format: of the numbers at the axes.
    """

    label: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    levels: Sequence[tuple[float, str]] = ()
    y_range: tuple[float, float] | None = None
    x_format: Callable[[float], str] = field(default=lambda value: compact(value))
    y_format: Callable[[float], str] = field(default=lambda value: compact(value))


def look(agent: int) -> str:
    """The classes of the agent of that number.

    >>> look(0), look(9)
    ('c0 d0', 'c1 d2')
    """
    return f"c{agent % COLOURS} d{(agent + agent // COLOURS) % DASHES}"


def swatch(agent: int) -> str:
    """The agent's line and marker, for legends and names."""
    return (
        f'<svg class="swatch {look(agent)}" viewBox="0 0 34 12" aria-hidden="true">'
        f'<path class="line" d="M1 6h32"/>{_marker(agent, 17, 6)}</svg>'
    )


def compact(value: float) -> str:
    """A number at an axis.

    >>> [compact(v) for v in (0, 0.25, -1.5, 20_000, 2_500_000)]
    ['0', '0.25', '−1.5', '20k', '2.5M']
    """
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:.4g}{letter}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """A share at an axis.

    >>> percent(0.2), percent(0.125)
    ('20%', '12.5%')
    """
    return f"{100 * value:.4g}%"


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between `low` and `high`, at most `most` of them.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(s * power for s in (1, 2, 2.5, 5, 10, 20) if span / (s * power) <= most - 1 + 1e-9)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def draw(chart: Chart) -> str:
    """The chart as an SVG element; a sentence where there is nothing to draw."""
    if not chart.lines:
        return f'<p class="dim">No curve was recorded: {shown(chart.label)}.</p>'
    x_range, y_range = _ranges(chart)
    axes = _Axes(x_range, y_range)
    ending = "; ".join(f"{line.name} ends at {number(line.y[-1])}" for line in chart.lines)
    # Bands lie behind all lines.
    bands = "".join(_band(line, axes) for line in chart.lines)
    lines = "".join(_line(line, axes) for line in chart.lines)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{shown(f"{chart.label}. {ending}.", 2_000)}">'
        f"{_grid(chart, axes)}{bands}{lines}</svg>"
    )


def whisker(agent: int, value: float, low: float, high: float, span: tuple[float, float]) -> str:
    """A figure and its interval on a line that is the same in every row of a table."""
    at = _Axes(span, (0.0, 1.0), left=6, right=6, width=132)
    bar = ""
    if math.isfinite(low) and math.isfinite(high):
        bar = f'<path class="bar" d="M{at.x(low):.1f} 8H{at.x(high):.1f}"/>'
    return (
        f'<svg class="whisker c{agent % COLOURS}" viewBox="0 0 132 16" aria-hidden="true">'
        f'<path class="rule" d="M6 8H126"/>{bar}'
        f"{_marker(agent, at.x(value), 8)}</svg>"
    )


# ---------------------------------------------------------------- the parts
class _Axes:
    """From figures to places in the picture."""

    def __init__(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        left: float = LEFT,
        right: float = RIGHT,
        width: float = WIDTH,
    ) -> None:
        self.x_range, self.y_range = x_range, y_range
        self.left, self.width = left, width - left - right

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def path(self, x: Floats, y: Floats, step: bool = False) -> str:
        """`M x y x y ...`, a corner at each point where it is a step."""
        if step:
            x, y = np.repeat(x, 2)[1:], np.repeat(y, 2)[:-1]
        points = zip(x.tolist(), y.tolist(), strict=True)
        return "M" + " ".join(f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in points)


def _ranges(chart: Chart) -> tuple[tuple[float, float], tuple[float, float]]:
    """What of x and y is shown: all of it, and a little room above and below."""
    xs = np.concatenate([line.x for line in chart.lines])
    parts = [np.asarray([level for level, _ in chart.levels] + list(chart.y_range or ()))]
    for line in chart.lines:
        parts += [line.y, *(y for _, y in line.runs)]
        parts += [band for band in (line.low, line.high) if band is not None]
    ys = np.concatenate(parts)
    ys = ys[np.isfinite(ys)]
    low, high = _open(float(ys.min()), float(ys.max()))
    room = 0.0 if chart.y_range == (low, high) else 0.04 * (high - low)
    return _open(float(xs.min()), float(xs.max())), (low - room, high + room)


def _open(low: float, high: float) -> tuple[float, float]:
    """The same range, or one around its only point."""
    if high - low > 1e-9 * max(1.0, abs(low), abs(high)):
        return low, high
    half = max(0.5, abs(high) / 2)
    return low - half, high + half


def _grid(chart: Chart, axes: _Axes) -> str:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = []
    for value in ticks(*axes.y_range):
        y = axes.y(value)
        parts.append(f'<path class="rule" d="M{LEFT} {y:.1f}H{right}"/>')
        parts.append(
            f'<text x="{LEFT - 7}" y="{y + 4.5:.1f}" text-anchor="end">'
            f"{chart.y_format(value)}</text>"
        )
    for value in ticks(*axes.x_range):
        x = axes.x(value)
        parts.append(f'<path class="tick" d="M{x:.1f} {bottom}v5"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">'
            f"{chart.x_format(value)}</text>"
        )
    for value, name in chart.levels:
        y = axes.y(value)
        parts.append(f'<path class="level" d="M{LEFT} {y:.1f}H{right}"/>')
        over = -5 if y > TOP + 20 else 16
        parts.append(
            f'<text class="level" x="{right - 2}" y="{y + over:.1f}" text-anchor="end">'
            f"{shown(name)}</text>"
        )
    parts.append(f'<path class="axis" d="M{LEFT} {bottom}H{right}"/>')
    parts.append(f'<text class="label" x="4" y="16">{shown(chart.y_label)}</text>')
    middle = (LEFT + right) / 2
    parts.append(
        f'<text class="label" x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{shown(chart.x_label)}</text>"
    )
    return f'<g class="grid">{"".join(parts)}</g>'


def _band(line: Line, axes: _Axes) -> str:
    if line.low is None or line.high is None or not np.isfinite(line.low).all():
        return ""
    there = axes.path(line.x, line.high, line.step)
    back = axes.path(line.x, line.low, line.step)[1:].split(" ")
    pairs = [" ".join(back[i : i + 2]) for i in range(0, len(back), 2)]
    return (
        f'<path class="band c{line.agent % COLOURS}" data-agent="{line.agent}" '
        f'd="{there} {" ".join(reversed(pairs))}z"/>'
    )


def _line(line: Line, axes: _Axes) -> str:
    runs = "".join(f'<path class="run" d="{axes.path(x, y)}"/>' for x, y in line.runs)
    # Markers of different agents lie at different places of the line.
    count = len(line.x)
    shift = (line.agent * 0.37) % 1.0
    places = {
        min(count - 1, round((i + shift) * (count - 1) / _MARKERS_ON_A_LINE))
        for i in range(_MARKERS_ON_A_LINE)
    }
    markers = "".join(
        _marker(line.agent, axes.x(float(line.x[i])), axes.y(float(line.y[i])))
        for i in sorted(places)
    )
    return (
        f'<g class="{look(line.agent)}" data-agent="{line.agent}"><title>{shown(line.name)}</title>'
        f'{runs}<path class="line" d="{axes.path(line.x, line.y, line.step)}"/>{markers}</g>'
    )


def _marker(agent: int, x: float, y: float) -> str:
    shape = MARKERS[agent % len(MARKERS)]
    return f'<path class="marker" d="M{x:.1f} {y:.1f}{shape}"/>'
