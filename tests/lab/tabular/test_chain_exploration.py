"""Tests of rlhf.lab.tabular.chain_exploration."""

import pytest
import torch

from rlhf.lab.section import Settings
from rlhf.lab.tabular.chain_exploration import STARTS, growth, run
from rlhf.lab.tabular.chain_runs import Solving


def numbers():
    return torch.Generator().manual_seed(0)


def solving(*episodes, cap=None):
    spent = torch.tensor(episodes, dtype=torch.float64)
    return Solving(episodes=spent, solved=torch.ones_like(spent, dtype=torch.bool) if cap is None else spent < cap)


def test_an_exponential_and_a_power_law_are_told_apart():
    lengths = (2, 4, 8, 16)
    exponential = growth(lengths, [solving(2.0**h, 2.0**h) for h in lengths], numbers())
    power = growth(lengths, [solving(5.0 * h**3, 5.0 * h**3) for h in lengths], numbers())
    assert (exponential.law, power.law) == ("exponential", "power")
    assert (exponential.base.value, power.power.value) == (pytest.approx(2.0), pytest.approx(3.0))


def test_runs_that_were_given_up_lengthen_the_mean_and_leave_the_fit_when_they_are_many():
    runs = [solving(10, 20), solving(30, 40, 100, cap=100), solving(50, 100, 100, cap=100), solving(100, 100, cap=100)]
    found = growth((1, 2, 3, 4), runs, numbers())
    # All episodes over the runs that solved: 30 / 2, 170 / 2, 250 / 1; no run solved the last: 200 as if one had.
    assert [point.value for point in found.points] == pytest.approx([15.0, 85.0, 250.0, 200.0])
    assert (found.num_solved, found.is_fitted) == ([2, 2, 1, 0], [True, True, False, False])
    assert found.base.value == pytest.approx(85 / 15)


def test_the_base_of_a_clone_is_the_inverse_of_its_chance_to_advance():
    assert [start.base for start in STARTS[:4]] == pytest.approx([3.0, 2.0, 7 / 5, 19 / 17])


@pytest.mark.slow
def test_the_section_shows_every_start_and_how_many_runs_solved():
    section = run(Settings(quick=True))
    fits, points = section.tables
    assert [row[0] for row in fits.rows] == [start.name for start in STARTS]
    assert len(points.rows) == 2 * len(STARTS) and all(row[3] == "4 of 4" for row in points.rows)
    drawn, resets = section.figures
    assert {curve.label for curve in drawn.curves} == {*(start.name for start in STARTS), "3^H"}
    assert {curve.label for curve in resets.curves} == {start.name for start in STARTS if start.is_reset}
