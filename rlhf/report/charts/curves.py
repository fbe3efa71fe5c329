"""A chart of lines over steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from rlhf.printable import visible
from rlhf.report.charts.axis import Axis, axis_over, short, ticks
from rlhf.report.charts.line import Event, Line
from rlhf.report.charts.svg import element, path
from rlhf.report.reading.metrics import Floats

WIDTH, HEIGHT = 400.0, 230.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 8.0, 8.0, 36.0
COLOURS = 6
"""Lines beyond these repeat the classes."""
TABLE_ROWS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is drawn over one pair of axes."""

    key: str
    """Unique on the page."""
    title: str
    lines: Sequence[Line]
    unit: str = ""
    x_label: str = "step"
    events: Sequence[Event] = field(default_factory=tuple)
    level: float | None = None
    """A value marked by a horizontal line."""

    @property
    def description(self) -> str:
        """The chart in words: where each line began and ended, and its range."""
        return " ".join(_told(line, self.unit) for line in self.lines if len(line.x))

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Return the header and a few rows of the numbers, evenly over the stops."""
        steps = self.stops()
        chosen = steps[np.unique(np.linspace(0, len(steps) - 1, TABLE_ROWS).round().astype(int))]
        rows = [[short(step), *(_cell(line, step) for line in self.lines)] for step in chosen.tolist()]
        return [self.x_label, *(line.label for line in self.lines)], rows

    def stops(self) -> Floats:
        """Return where the chart is read, in order: at the points that were measured, else wherever a line has one."""
        measured = [line for line in self.lines if line.points_only] or self.lines
        return np.unique(np.concatenate([line.x for line in measured]))

    def key_of(self, place: int) -> str:
        """Return the class of a line's sign in the legend: its colour, and whether it is points or a line."""
        line = self.lines[place]
        return f"k{_colour(line, place)}{' point' if line.points_only else ''}"

    def data(self) -> dict[str, object]:
        """Return the numbers that the reading by pointer and keys needs."""
        x, _ = self.axes()
        return {
            "name": self.x_label,
            "stops": self.stops().round(3).tolist(),
            "x": [round(x.low, 3), round(x.high, 3), x.start, x.end],
            "lines": [
                {
                    "name": visible(line.label),
                    "x": line.x.round(3).tolist(),
                    "y": _readings(line),
                }
                for line in self.lines
            ],
        }

    def axes(self) -> tuple[Axis, Axis]:
        """Return the axes that hold every line."""
        xs = np.concatenate([line.x for line in self.lines])
        ys = np.concatenate([part for line in self.lines for part in (line.y, line.low, line.high) if part is not None])
        if self.level is not None:
            ys = np.append(ys, self.level)
        x = axis_over(float(xs.min()), float(xs.max()), LEFT, WIDTH - RIGHT, margin=0.0)
        return x, axis_over(float(ys.min()), float(ys.max()), HEIGHT - BOTTOM, TOP)

    def svg(self, *, focusable: bool = True) -> Markup:
        """Return the drawing with a title and a description for a screen reader."""
        names = {"aria_labelledby": f"{self.key}-t {self.key}-d", "role": "img"}
        focus = {"tabindex": "0"} if focusable else {}
        return element(
            "svg",
            element("title", self.title, id=f"{self.key}-t"),
            element("desc", self.description, id=f"{self.key}-d"),
            *self.body(),
            viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
            class_="chart",
            **names,
            **focus,
        )

    def body(self) -> list[Markup]:
        """Return the elements of the drawing: grid, bands, lines, events."""
        x, y = self.axes()
        parts = [*_grid(x, y, self.x_label)]
        if self.level is not None:
            place = y.at(self.level)
            parts.append(element("path", d=path([(x.start, place), (x.end, place)]), class_="level"))
        for event in self.events:
            place = x.at(event.x)
            mark = element("path", element("title", event.label), d=path([(place, y.start), (place, y.end)]))
            parts.append(element("g", mark, class_="event"))
        for number, line in enumerate(self.lines):
            parts += _drawn(line, _colour(line, number), x, y)
        return parts


def _colour(line: Line, place: int) -> int:
    return (place if line.colour is None else line.colour) % COLOURS


def _grid(x: Axis, y: Axis, x_label: str) -> list[Markup]:
    parts = []
    for value in ticks(y, 4):
        place = y.at(value)
        parts.append(element("path", d=path([(x.start, place), (x.end, place)]), class_="grid"))
        parts.append(element("text", short(value), x=x.start - 5, y=place + 4, text_anchor="end"))
    for value in ticks(x, 5):
        place = x.at(value)
        parts.append(element("path", d=path([(place, y.start), (place, y.start + 4)]), class_="axis"))
        anchor = "end" if place > x.end - 12 else "middle"
        parts.append(element("text", short(value), x=place, y=y.start + 17, text_anchor=anchor))
    parts.append(element("path", d=path([(x.start, y.start), (x.end, y.start)]), class_="axis"))
    parts.append(element("text", x_label, x=(x.start + x.end) / 2, y=y.start + 32, text_anchor="middle", class_="name"))
    return parts


def _drawn(line: Line, colour: int, x: Axis, y: Axis) -> list[Markup]:
    points = [(x.at(a), y.at(b)) for a, b in zip(line.x.tolist(), line.y.tolist(), strict=True)]
    if line.points_only:
        return [part for place, point in enumerate(points) for part in _point(line, place, point, colour, y)]
    parts = []
    if line.low is not None and line.high is not None:
        above = [(x.at(a), y.at(b)) for a, b in zip(line.x.tolist(), line.high.tolist(), strict=True)]
        below = [(x.at(a), y.at(b)) for a, b in zip(line.x.tolist(), line.low.tolist(), strict=True)]
        parts.append(element("path", d=path([*above, *reversed(below)], closed=True), class_=f"band b{colour}"))
    if len(points) == 1:
        parts.append(element("circle", cx=points[0][0], cy=points[0][1], r=3.0, class_=f"dot d{colour}"))
    else:
        parts.append(element("path", d=path(points), class_=f"line s{colour}"))
    return parts


def _point(line: Line, place: int, point: tuple[float, float], colour: int, y: Axis) -> list[Markup]:
    parts = [element("circle", cx=point[0], cy=point[1], r=4.0, class_=f"dot d{colour}")]
    if line.low is not None and line.high is not None:
        ends = [(point[0], y.at(float(edge[place]))) for edge in (line.low, line.high)]
        parts.insert(0, element("path", d=path(ends), class_=f"line s{colour} solid"))
    return parts


def _told(line: Line, unit: str) -> str:
    first, last = short(float(line.y[0])), short(float(line.y[-1]))
    low, high = short(float(line.y.min())), short(float(line.y.max()))
    of = f" {unit}" if unit else ""
    return f"{line.label}: {len(line.x)} points, from {first} to {last}{of}; lowest {low}, highest {high}."


def _cell(line: Line, x: float) -> str:
    place = line.place_at(x)
    return "-" if place is None else _interval(line, place) or short(float(line.y[place]))


def _readings(line: Line) -> list[float | str]:
    """Return what is read aloud at each point: a number, or a measured point with its interval."""
    return [_interval(line, place) or _rounded(y) for place, y in enumerate(line.y.tolist())]


def _interval(line: Line, place: int) -> str:
    """Return a measured point with its interval, as `0.5 [0.3, 0.7]`; nothing for a point of a curve."""
    if not line.points_only or line.low is None or line.high is None:
        return ""
    mean, low, high = (short(_rounded(float(edge[place]))) for edge in (line.y, line.low, line.high))
    return f"{mean} [{low}, {high}]"


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
