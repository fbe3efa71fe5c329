"""A forest plot: one interval a row, and the line of no difference."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rlhf.report.charts.axis import Axis, ticks
from rlhf.report.charts.svg import element, path

WIDTH, ROW, TOP, BOTTOM, SIDE = 400.0, 42.0, 8.0, 38.0, 16.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A win rate with its interval."""

    label: str
    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says: wins, loses, or neither."""
        return "wins" if self.low > 0.5 else "loses" if self.high < 0.5 else "no difference shown"

    @property
    def shown(self) -> str:
        """The numbers, as `62.5% [51.0%, 73.0%]`."""
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


def forest(key: str, title: str, rows: Sequence[Estimate]) -> Markup:
    """Return the drawing: each row with its label above the interval, so that long names fit on a phone."""
    x = Axis(0.0, 1.0, SIDE, WIDTH - SIDE)
    bottom = TOP + ROW * len(rows)
    told = " ".join(f"{row.label}: {row.shown}, {row.verdict}." for row in rows)
    parts = [element("title", title, id=f"{key}-t"), element("desc", told, id=f"{key}-d"), *_frame(x, bottom)]
    for number, row in enumerate(rows):
        parts += _row(row, TOP + ROW * number, x)
    height = bottom + BOTTOM
    view = f"0 0 {WIDTH:g} {height:g}"
    return element("svg", *parts, viewBox=view, class_="chart", role="img", aria_labelledby=f"{key}-t {key}-d")


def _frame(x: Axis, bottom: float) -> list[Markup]:
    parts = []
    for value in ticks(x, 4):
        place = x.at(value)
        kind = "level" if abs(value - 0.5) < 1e-9 else "grid"
        parts.append(element("path", d=path([(place, TOP), (place, bottom)]), class_=kind))
        parts.append(element("text", f"{value:.0%}", x=place, y=bottom + 14, text_anchor="middle"))
    name = "share of prompts won; 50% is no difference"
    parts.append(element("text", name, x=WIDTH / 2, y=bottom + 32, text_anchor="middle", class_="name"))
    return parts


def _row(row: Estimate, top: float, x: Axis) -> list[Markup]:
    middle, colour = top + 29, {"wins": 2, "loses": 1}.get(row.verdict, 5)
    ends = [(x.at(max(0.0, row.low)), middle), (x.at(min(1.0, row.high)), middle)]
    return [
        element("text", row.label, x=SIDE, y=top + 15, class_="label"),
        element("text", row.shown, x=WIDTH - SIDE, y=top + 15, text_anchor="end"),
        element("path", d=path(ends), class_=f"line s{colour} solid"),
        *(
            element("path", d=path([(end, middle - 5), (end, middle + 5)]), class_=f"line s{colour} solid")
            for end, _ in ends
        ),
        element("circle", cx=x.at(row.mean), cy=middle, r=5.0, class_=f"dot d{colour}"),
    ]
