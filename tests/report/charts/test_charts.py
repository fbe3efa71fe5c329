"""Tests of rlhf.report.charts: axes, thinned lines, and drawings that a parser reads."""

from xml.etree import ElementTree

import numpy as np
import pytest

from rlhf.report.charts.axis import axis_over, short, ticks
from rlhf.report.charts.curves import Chart
from rlhf.report.charts.forest import Estimate, forest
from rlhf.report.charts.line import MOST_POINTS, Event, Line, band_of, line_of
from rlhf.report.reading.metrics import Series


def series(values, start=1):
    return Series("x", np.arange(start, start + len(values), dtype=float), np.array(values, dtype=float))


def drawn(svg):
    return ElementTree.fromstring(str(svg))


def test_an_axis_puts_its_ends_at_its_places_and_has_round_ticks():
    axis = axis_over(0.0, 10.0, 50.0, 150.0, margin=0.0)
    assert (axis.at(0), axis.at(5), axis.at(10)) == (50, 100, 150)
    assert ticks(axis) == [0, 2, 4, 6, 8, 10]
    assert ticks(axis_over(-1.93, 1.81, 0, 1)) == [-2, -1, 0, 1]


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e-9])
def test_an_axis_over_one_value_has_a_width(value):
    axis = axis_over(value, value, 0.0, 100.0)
    assert axis.low < value < axis.high and axis.at(value) == pytest.approx(50)
    assert ticks(axis)


def test_numbers_are_short():
    assert [short(x) for x in (0.0, 1e-5, 0.05, 1500.0, 123456.0, -2.5)] == [
        "0",
        "1e-5",
        "0.05",
        "1500",
        "1.235e5",
        "-2.5",
    ]


def test_a_short_series_keeps_its_points_and_a_long_one_its_extremes():
    assert line_of(series([1, 2, 3]), "a").y.tolist() == [1, 2, 3]
    values = np.zeros(5000)
    values[1234], values[4000] = 50.0, -50.0
    line = line_of(series(values), "a")
    assert len(line.x) == MOST_POINTS and line.x[-1] == 5000
    assert line.high.max() == 50 and line.low.min() == -50


def test_a_band_covers_the_steps_that_all_runs_have():
    band = band_of([series([0, 1, 2, 3]), series([4, 5, 6, 7, 8], start=2)], "mean")
    assert band.x.tolist() == [2, 3, 4]
    assert band.y.tolist() == [2.5, 3.5, 4.5] and band.low.tolist() == [1, 2, 3] and band.high.tolist() == [4, 5, 6]
    assert band_of([series([1, 2])], "mean") is None


def test_a_chart_names_and_describes_itself_and_draws_every_line():
    lines = [line_of(series([0, 1, 4]), "first"), line_of(series([2, 2, 2]), "second")]
    chart = Chart(
        key="c", title="Score", lines=lines, unit="points", events=[Event(2.0, "checkpoint at step 2")], level=0.0
    )
    root = drawn(chart.svg())
    assert (
        root.attrib["role"] == "img" and root.attrib["aria-labelledby"] == "c-t c-d" and root.attrib["tabindex"] == "0"
    )
    assert root.find("title").text == "Score" and "first: 3 points, from 0 to 4 points" in root.find("desc").text
    paths = [each for each in root.iter("path") if "line" in each.get("class", "").split()]
    assert [each.get("class") for each in paths] == ["line s0", "line s1"]
    assert [title.text for title in root.iter("title")] == ["Score", "checkpoint at step 2"]
    header, rows = chart.table()
    assert header == ["step", "first", "second"] and rows == [["1", "0", "2"], ["2", "1", "2"], ["3", "4", "2"]]


def test_a_higher_value_is_drawn_higher():
    root = drawn(Chart(key="c", title="t", lines=[line_of(series([0, 10]), "a")]).svg())
    path = next(each for each in root.iter("path") if each.get("class") == "line s0").get("d")
    (_, low), (_, high) = (map(float, point.split()) for point in path[1:].split("L"))
    assert high < low


def test_a_table_of_many_steps_has_few_rows_with_the_first_and_the_last():
    rows = Chart(key="c", title="t", lines=[line_of(series(range(150)), "a")]).table()[1]
    assert len(rows) == 12 and rows[0][0] == "1" and rows[-1][0] == "150"


def test_hostile_names_stay_text():
    line = Line(label='</svg><script>"&', x=np.array([1.0, 2.0]), y=np.array([1.0, 2.0]))
    root = drawn(Chart(key="c", title="<b>\x1b\u202e", lines=[line], x_label="<i>").svg())
    assert root.find("title").text == "<b>\u241b[U+202E]" and root.find("script") is None
    assert "</svg><script>" in root.find("desc").text


def test_a_forest_says_in_words_what_each_interval_means():
    rows = [
        Estimate(label="a", mean=0.7, low=0.6, high=0.8),
        Estimate(label="b", mean=0.3, low=0.2, high=0.4),
        Estimate(label="c", mean=0.5, low=0.4, high=0.6),
    ]
    root = drawn(forest("f", "Win rates", rows))
    told = root.find("desc").text
    assert "a: 70.0% [60.0%, 80.0%], wins." in told and "b: 30.0% [20.0%, 40.0%], loses." in told
    assert "c: 50.0% [40.0%, 60.0%], no difference shown." in told
    places = [float(dot.get("cx")) for dot in root.iter("circle")]
    assert places[1] < places[2] < places[0]
