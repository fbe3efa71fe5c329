import pytest
import torch

from rlhf.functional.statistics import explained_variance

NAN, INF = float("nan"), float("inf")


def test_explained_variance_by_hand():
    values, returns = torch.tensor([[1.0, 2.0, NAN], [2.0, 4.0, 0.0]]), torch.tensor([[1.0, 3.0, 9.0], [3.0, 5.0, INF]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    # returns 1, 3, 3, 5: mean 3, var (4 + 0 + 0 + 4) / 4 = 2
    # errors 0, 1, 1, 1: mean 0.75, var (0.5625 + 3 * 0.0625) / 4 = 0.1875; 1 - 0.1875 / 2 = 0.90625
    assert explained_variance(values, returns, mask).item() == pytest.approx(0.90625)


def test_explained_variance_agrees_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    returns = torch.randn(4, 5, generator=generator)
    values = returns + torch.randn(4, 5, generator=generator)
    mask = torch.rand(4, 5, generator=generator) > 0.3
    targets = returns[mask].tolist()
    errors = [target - value for target, value in zip(targets, values[mask].tolist(), strict=True)]
    spreads = [sum((x - sum(xs) / len(xs)) ** 2 for x in xs) for xs in (errors, targets)]
    expected = 1 - spreads[0] / spreads[1]
    assert explained_variance(values, returns, mask).item() == pytest.approx(expected, abs=1e-5)


def test_perfect_constant_and_opposite_values():
    returns, mask = torch.tensor([[1.0, 2.0, 4.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert explained_variance(returns, returns, mask).item() == 1.0
    assert explained_variance(returns + 7, returns, mask).item() == pytest.approx(1.0)
    assert explained_variance(torch.full((1, 3), 0.3), returns, mask).item() == pytest.approx(0.0, abs=1e-6)
    # errors are 2 * returns, variance 4 times: 1 - 4
    assert explained_variance(-returns, returns, mask).item() == pytest.approx(-3.0)


def test_equal_returns_give_0_and_not_nan():
    mask = torch.ones(2, 2, dtype=torch.bool)
    assert explained_variance(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.full((2, 2), 0.1), mask).item() == 0.0
    assert explained_variance(torch.ones(2, 2), torch.ones(2, 2), mask.logical_not()).item() == 0.0


def test_explained_variance_is_detached():
    values, returns = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor([[1.0, 3.0]])
    assert not explained_variance(values, returns, torch.ones(1, 2, dtype=torch.bool)).requires_grad


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"returns must have the shape of values \[2, 2\], found \[2\]"):
        explained_variance(torch.ones(2, 2), torch.ones(2), torch.ones(2, 2, dtype=torch.bool))
