"""Tests of rlhf.lab.tabular.stability."""

import pytest

from rlhf.lab.estimate import Estimate
from rlhf.lab.section import Settings
from rlhf.lab.tabular.stability import CLIPPED, EPOCHS, NAIVE, OBJECTIVES, SURROGATE, largest_holding, run, verdict


def cells(*values, epochs=4, name=NAIVE):
    return {(epochs, name, k): Estimate(value=value, low=value, high=value) for k, value in enumerate(values)}


def test_a_cell_holds_from_half_of_the_best_one_on():
    closed = cells(0.4, 0.39, 0.2, name=NAIVE) | cells(0.1, 0.8, name=CLIPPED)
    assert verdict(closed, (4, NAIVE, 0)) == "holds"
    assert verdict(closed, (4, NAIVE, 1)) == "breaks"


def test_a_cell_is_slow_where_a_larger_learning_rate_does_better_and_breaks_otherwise():
    closed = cells(0.1, -0.3, 0.9, 0.2, -1.0)
    states = [verdict(closed, (4, NAIVE, k)) for k in range(5)]
    # The second is below its start: no larger step excuses that.
    assert states == ["slow", "breaks", "holds", "breaks", "breaks"]


def test_only_the_own_column_tells_slow_from_broken():
    closed = cells(0.1, 0.05, name=NAIVE) | cells(0.2, 0.9, name=CLIPPED)
    assert verdict(closed, (4, NAIVE, 0)) == "breaks"
    assert verdict(closed, (4, CLIPPED, 0)) == "slow"


def test_the_largest_learning_rate_that_holds():
    states = {(4, NAIVE, 0): "holds", (4, NAIVE, 1): "breaks", (4, NAIVE, 2): "holds", (4, NAIVE, 3): "slow"}
    assert largest_holding(states, 4, NAIVE, (0.1, 0.2, 0.3, 0.4)) == 0.3
    assert largest_holding(dict.fromkeys(states, "slow"), 4, NAIVE, (0.1, 0.2, 0.3, 0.4)) is None


@pytest.fixture(scope="module")
def section():
    return run(Settings(quick=True))


def test_with_one_epoch_the_columns_are_equal_and_with_more_they_are_not(section):
    closed, moved, edges = section.tables
    assert closed.header[2:] == list(OBJECTIVES) == [NAIVE, SURROGATE, CLIPPED]
    for table in (closed, moved):
        equal = {row[0]: len(set(row[2:])) == 1 for row in table.rows}
        assert equal == {"1": True, "4": False, "16": False}
    assert [row[0] for row in edges.rows] == [str(epochs) for epochs in EPOCHS]


def test_there_is_a_figure_for_each_number_of_epochs(section):
    assert [figure.name for figure in section.figures] == ["stability_1", "stability_4", "stability_16"]
    first = section.figures[0].curves
    assert first[0].y == pytest.approx(first[1].y) and first[0].y == pytest.approx(first[2].y)
