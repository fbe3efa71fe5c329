"""Tests of rlhf.lab.tabular.fits."""

import math

import pytest
import torch

from rlhf.lab.estimate import Estimate
from rlhf.lab.tabular.fits import estimate, fitted_line, logarithms, mean_estimate, resampled_means


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_line_by_hand():
    # x - mean = -1, 0, 1; slope = (-1 * 1 + 1 * 4) / 2 = 1.5; mean y = 7/3 at x = 1; intercept 7/3 - 1.5 = 5/6.
    # Distances: 1 - 5/6 = 1/6, 2 - 14/6 = -1/3, 4 - 23/6 = 1/6; mean square (1/36 + 4/36 + 1/36) / 3 = 1/18.
    line = fitted_line([0.0, 1.0, 2.0], torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    assert float(line.slope) == pytest.approx(1.5)
    assert float(line.intercept) == pytest.approx(5 / 6)
    assert float(line.residual) == pytest.approx(math.sqrt(1 / 18))


def test_a_power_law_and_an_exponential_one_give_back_their_exponents():
    lengths = [4.0, 8.0, 32.0]
    powers = torch.tensor([5.0 * h**2.5 for h in lengths], dtype=torch.float64)
    exponentials = torch.tensor([0.1 * 3.0**h for h in lengths], dtype=torch.float64)
    assert float(fitted_line(logarithms(lengths), powers.log()).slope) == pytest.approx(2.5)
    assert float(fitted_line(lengths, exponentials.log()).slope.exp()) == pytest.approx(3.0)


def test_every_row_of_points_is_fitted_on_its_own():
    rows = torch.randn(5, 4, dtype=torch.float64, generator=numbers())
    together = fitted_line([1.0, 2.0, 4.0, 8.0], rows)
    for row, slope in zip(rows, together.slope, strict=True):
        assert float(fitted_line([1.0, 2.0, 4.0, 8.0], row).slope) == pytest.approx(float(slope))


@pytest.mark.parametrize("x", [[3.0], [3.0, 3.0], [1.0, 2.0, 3.0]])
def test_points_through_which_no_line_goes_are_refused(x):
    with pytest.raises(ValueError, match="a line needs two different places and a point at each"):
        fitted_line(x, torch.zeros(min(len(x), 2)))


def test_resampled_means_are_means_of_rows_of_the_sample():
    # Of the sample 0, 1 a resample has mean 0, 1/2 or 1, half of them 1/2.
    means = resampled_means(torch.tensor([0.0, 1.0]), numbers(), 4000)
    assert means.shape == (4000,) and set(means.tolist()) == {0.0, 0.5, 1.0}
    # 4000 draws of probability 1/2 lie within 5 standard deviations, 5 * sqrt(1 / 4 / 4000) = 0.04, of it.
    assert float((means == 0.5).double().mean()) == pytest.approx(0.5, abs=0.04)


def test_rows_are_drawn_whole():
    pairs = torch.tensor([[1.0, 10.0], [2.0, 20.0], [5.0, 50.0]])
    means = resampled_means(pairs, numbers(), 50)
    assert means.shape == (50, 2) and torch.allclose(means[:, 1], 10.0 * means[:, 0])


def test_resamples_in_blocks_are_as_many_as_asked_for(monkeypatch):
    monkeypatch.setattr("rlhf.lab.tabular.fits._INDICES_AT_ONCE", 7)
    assert resampled_means(torch.arange(3.0), numbers(), 5).shape == (5,)


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    # The standard error is sqrt(1 / 400) = 0.05 and the 95 % interval 2 * 1.96 of them wide; the ends of 1000
    # resamples wobble by about sqrt(0.025 * 0.975 / 1000) / 0.058 = 0.085 standard errors each.
    sample = torch.randn(400, dtype=torch.float64, generator=numbers(1))
    found = mean_estimate(sample, numbers())
    assert found.value == pytest.approx(float(sample.mean()))
    assert found.high - found.low == pytest.approx(2 * 1.96 * float(sample.std()) / 20, rel=0.15)
    assert found.holds(found.value) and not found.holds(found.high + 1e-9)


def test_a_higher_level_is_a_wider_interval():
    resamples = torch.arange(101.0)
    assert estimate(50.0, resamples, 0.9) == Estimate(value=50.0, low=pytest.approx(5), high=pytest.approx(95))
    assert estimate(50.0, resamples, 0.5) == Estimate(value=50.0, low=pytest.approx(25), high=pytest.approx(75))
