"""Tests of rlhf.lab.tabular.variance."""

import dataclasses

import pytest
import torch

from rlhf.lab.section import Settings
from rlhf.lab.tabular import variance


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rung", variance.RUNGS, ids=lambda rung: rung.name)
@pytest.mark.parametrize("horizon", [1, 5])
def test_sampled_second_moments_are_the_derived_ones(rung, horizon):
    squares = variance.squared_gradients(rung, horizon, 20_000, numbers())
    # Within 5 standard errors of the sample itself; a length of 1 without noise has none.
    error = float(squares.std()) / 20_000**0.5
    assert float(squares.mean()) == pytest.approx(rung.exact(horizon), abs=5 * error + 1e-9)


def test_the_exact_slopes_are_those_of_the_formulas():
    found = {rung.name: variance.measure(rung, (4, 8, 16), 64, numbers()) for rung in variance.RUNGS}
    assert found["whole return"].exact_exponent == pytest.approx(3.0)
    assert found["GAE, lambda 0"].exact_exponent == pytest.approx(1.0)
    # H(H+1)/2 at 4, 8, 16 is 10, 36, 136; with equal steps of log H the slope is that between the ends.
    slope = torch.tensor(136 / 10).log() / torch.tensor(4.0).log()
    assert found["reward to go - exact value"].exact_exponent == pytest.approx(float(slope), abs=1e-6)


def test_the_finding_names_a_rung_whose_formula_is_wrong(monkeypatch):
    wrong = dataclasses.replace(variance.RUNGS[0], exact=lambda horizon: horizon**2)
    monkeypatch.setattr(variance, "RUNGS", (wrong, *variance.RUNGS[1:]))
    assert "do not agree for: whole return." in variance.run(Settings(quick=True)).finding


def test_the_section_holds_the_numbers_of_its_figure():
    section = variance.run(Settings(quick=True))
    assert "all 5 intervals hold" in section.finding
    (figure,) = section.figures
    measured = [curve for curve in figure.curves if curve.low is not None]
    exact = [curve for curve in figure.curves if curve.low is None]
    assert [curve.label for curve in measured] == [row[0] for row in section.tables[0].rows]
    assert exact[0].y == [4.0**3, 8.0**3, 16.0**3]


def test_one_seed_gives_the_same_section_and_another_seed_another_one():
    assert variance.run(Settings(quick=True)) == variance.run(Settings(quick=True))
    assert variance.run(Settings(quick=True)) != variance.run(Settings(quick=True, seed=1))
