"""Tests of rlhf.report.reading.metrics."""

import numpy as np

from rlhf.report.reading.metrics import of_rows


def test_a_series_has_the_finite_numbers_alone():
    rows = [
        {"step": 1, "kl": 0.0, "note": "text", "flag": True},
        {"step": 2, "kl": None, "not_finite": {"kl": "nan"}},
        {"step": 3, "kl": 2},
    ]
    metrics = of_rows(rows)
    kl = metrics.series("kl")
    assert kl.steps.tolist() == [1, 3] and kl.values.tolist() == [0, 2]
    assert metrics.names == ["step", "kl"] and not len(metrics.series("unknown"))
    assert metrics.not_finite() == {2: ["kl"]}


def test_a_step_that_was_written_twice_counts_once():
    metrics = of_rows([{"step": 1, "kl": 1}, {"step": 2, "kl": 5}, {"step": 2, "kl": 2}, {"no": "step"}])
    assert metrics.steps == [1, 2] and metrics.series("kl").values.tolist() == [1, 2]


def test_a_smoothed_series_ignores_an_outlier_and_follows_a_trend():
    values = np.arange(40.0)
    values[10] = 1000.0
    series = of_rows([{"step": step, "x": value} for step, value in enumerate(values)]).series("x")
    assert series.smoothed().values.max() <= 39
    assert series.smoothed().values[-1] == 38  # median of 37, 38, 39


def test_what_no_float_or_step_can_be_is_left_out():
    rows = [{"step": 10**400, "x": 1}, {"step": True, "x": 1}, {"step": 3, "x": 10**400, "not_finite": 5}]
    metrics = of_rows([*rows, {"step": 4, "x": 2.5}])
    assert metrics.steps == [3, 4] and metrics.series("x").values.tolist() == [2.5]
    assert metrics.not_finite() == {}
