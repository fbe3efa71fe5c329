"""Draws a figure as SVG: the same figure gives the same bytes."""

import io
from itertools import cycle
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from rlhf.lab.section import Curve, Figure

SIZE = (8.0, 4.2)
"""Inches."""
STYLE: dict[Any, Any] = {
    # Ids in the file are hashes of their content and this salt instead of random.
    "svg.hashsalt": "rlhf lab",
    "svg.fonttype": "none",
    "font.size": 10.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C564B")
"""Colour-blind readers can tell them apart; the first seven are those of Okabe and Ito 2008 without yellow."""
MARKERS = "osD^vPX*"
MAX_TICKS = 10
"""A logarithmic axis has its ticks at the measured x values if there are at most this many."""
PLAIN_COLOURS = ("#000000", "#888888", "#BBBBBB")


def svg(figure: Figure) -> str:
    """Return the SVG text of a figure.

    A curve with intervals is a line through its points with a band; one without is dashed. Curves with the same label
    look the same and appear once in the legend.
    """
    with mpl.rc_context(STYLE):
        canvas = Canvas(figsize=SIZE, layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.subplots()
        _draw(axes, figure)
        _label(axes, figure)
        handles, labels = axes.get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9.0)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": "rlhf lab"})
    # One kind of line ending and no trailing blanks, for version control.
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _draw(axes: Axes, figure: Figure) -> None:
    measured = list(dict.fromkeys(curve.label for curve in figure.curves if curve.low is not None))
    plain = list(dict.fromkeys(curve.label for curve in figure.curves if curve.low is None))
    looks = dict(zip(measured, cycle(zip(COLOURS, MARKERS, strict=True)), strict=False))
    plain_looks = dict(zip(plain, cycle(PLAIN_COLOURS), strict=False))
    seen: set[str] = set()
    # Measured curves come first, so they also come first in the legend.
    for curve in sorted(figure.curves, key=lambda curve: curve.low is None):
        label = "_" if curve.label in seen else curve.label  # the legend leaves out labels that begin with it
        seen.add(curve.label)
        if curve.low is None or curve.high is None:
            axes.plot(curve.x, curve.y, "--", color=plain_looks[curve.label], linewidth=1.0, label=label, zorder=4)
        else:
            _draw_measured(axes, curve, label, *looks[curve.label])


def _label(axes: Axes, figure: Figure) -> None:
    axes.set(title=figure.title, xlabel=figure.x_label, ylabel=figure.y_label)
    if figure.log_y:
        axes.set_yscale("log")
    if figure.log_x:
        axes.set_xscale("log")
        places = sorted({x for curve in figure.curves for x in curve.x})
        if len(places) <= MAX_TICKS:
            axes.set_xticks(places, [f"{x:g}" for x in places])
            axes.set_xticks([], minor=True)
    axes.grid(visible=True, linewidth=0.4, alpha=0.5)


def _draw_measured(axes: Axes, curve: Curve, label: str, colour: str, marker: str) -> None:
    axes.plot(curve.x, curve.y, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=label, zorder=3)
    axes.fill_between(curve.x, curve.low or [], curve.high or [], color=colour, alpha=0.2, linewidth=0.0, zorder=2)
