"""Tests of rlhf.lab.section."""

import pytest

from rlhf.lab.estimate import Estimate
from rlhf.lab.section import Curve, Table


def test_a_curve_with_a_missing_point_is_refused():
    with pytest.raises(ValueError, match="curve 'J'.*'x': 2, 'y': 1"):
        Curve(label="J", x=[1.0, 2.0], y=[1.0])


def test_a_curve_with_one_end_of_an_interval_is_refused():
    with pytest.raises(ValueError, match="curve 'J'"):
        Curve(label="J", x=[1.0], y=[1.0], low=[0.0])


def test_a_curve_through_estimates_has_their_intervals():
    points = [Estimate(value=2.0, low=1.0, high=4.0), Estimate(value=3.0, low=2.0, high=5.0)]
    found = Curve.through("J", (1.0, 8.0), points)
    assert found == Curve(label="J", x=[1.0, 8.0], y=[2.0, 3.0], low=[1.0, 2.0], high=[4.0, 5.0])


def test_a_row_that_does_not_fit_its_header_is_refused():
    with pytest.raises(ValueError, match="a row needs 2 cells, found 1"):
        Table(header=["a", "b"], rows=[["1", "2"], ["3"]])
