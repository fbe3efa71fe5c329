"""Tests of rlhf.lab.paint."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from rlhf.lab.paint import COLOURS, svg
from rlhf.lab.section import Curve, Figure

MEASURED = Curve(
    label="measured <1>", x=[1.0, 10.0, 100.0], y=[1.0, 2.0, 3.0], low=[0.5, 1.5, 2.5], high=[2.0, 3.0, 4.0]
)
PLAIN = Curve(label="formula", x=[1.0, 100.0], y=[1.0, 3.0])
FIGURE = Figure(name="f", title="A title", x_label="steps", y_label="J", curves=[PLAIN, MEASURED], log_x=True)


def texts(drawn):
    return [
        "".join(element.itertext()) for element in ElementTree.fromstring(drawn).iter() if element.tag.endswith("}text")
    ]


@pytest.mark.slow
def test_the_same_figure_gives_the_same_bytes():
    assert svg(FIGURE) == svg(FIGURE)
    assert svg(FIGURE) != svg(replace(FIGURE, title="Another"))


def test_no_date_is_in_it():
    assert "date" not in svg(FIGURE).lower()


def test_title_labels_and_the_legend_are_text():
    found = texts(svg(FIGURE))
    for words in ("A title", "steps", "J", "measured <1>", "formula"):
        assert words in found
    # Measured curves stand first in the legend.
    assert found.index("measured <1>") < found.index("formula")


@pytest.mark.slow
def test_a_logarithmic_axis_names_the_measured_places():
    assert {"1", "10", "100"} <= set(texts(svg(FIGURE)))
    many = [Curve(label="many", x=[float(x) for x in range(1, 13)], y=[1.0] * 12)]
    assert "7" not in texts(svg(replace(FIGURE, curves=many)))


def test_curves_with_one_label_stand_once_in_the_legend():
    twice = replace(FIGURE, curves=[MEASURED, PLAIN, replace(PLAIN, y=[2.0, 4.0])])
    assert texts(svg(twice)).count("formula") == 1


@pytest.mark.slow
def test_an_interval_is_a_band_and_a_formula_is_dashed():
    measured_only, plain_only = (svg(replace(FIGURE, curves=[curve])) for curve in (MEASURED, PLAIN))
    assert "FillBetween" in measured_only and "FillBetween" not in plain_only
    assert COLOURS[0].lower() in measured_only and COLOURS[0].lower() not in plain_only
    assert re.search(r"stroke-dasharray: [\d.]+,", plain_only) and not re.search(
        r"stroke-dasharray: [\d.]+,", measured_only
    )
