import math

import pytest
import torch

from rlhf.functional.masking import keep, masked_mean, masked_sum, masked_variance, whiten

NAN, INF = float("nan"), float("inf")
MASK = torch.tensor([[True, True, False], [False, True, True]])


def test_sum_mean_and_variance_by_hand():
    values = torch.tensor([[1.0, 2.0, NAN], [INF, 4.0, 5.0]])
    # kept: 1, 2, 4, 5; sum 12; mean 3; deviations -2, -1, 1, 2; squares 4 + 1 + 1 + 4 = 10; biased 10 / 4 = 2.5
    assert masked_sum(values, MASK).item() == 12.0
    assert masked_mean(values, MASK).item() == 3.0
    assert masked_variance(values, MASK).item() == 2.5


def test_whitening_by_hand():
    values = torch.tensor([[1.0, 2.0, NAN], [-INF, 4.0, 5.0]])
    # mean 3, biased var 2.5, std 1.5811388: -2 / 1.5811388 = -1.2649111, -1 / 1.5811388 = -0.6324555
    expected = torch.tensor([[-1.2649111, -0.6324555, 0.0], [0.0, 0.6324555, 1.2649111]])
    torch.testing.assert_close(whiten(values, MASK), expected)


def test_whitening_agrees_with_a_loop():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5, 7, generator=generator) * 3 + 2
    mask = torch.rand(5, 7, generator=generator) > 0.4
    kept = values[mask].tolist()
    mean = sum(kept) / len(kept)
    std = math.sqrt(sum((v - mean) ** 2 for v in kept) / len(kept) + 1e-8)
    slow = [
        [(v - mean) / std if m else 0.0 for v, m in zip(row, marks, strict=True)]
        for row, marks in zip(values.tolist(), mask.tolist(), strict=True)
    ]
    torch.testing.assert_close(whiten(values, mask), torch.tensor(slow))


def test_whitened_values_have_mean_0_and_biased_variance_1():
    values = torch.randn(6, 9, generator=torch.Generator().manual_seed(1)) * 40 - 7
    mask = torch.arange(9) < torch.tensor([[9], [5], [1], [7], [3], [9]])
    kept = whiten(values, mask)[mask]
    assert kept.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert kept.var(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3, 1e6 + 0.3])
def test_equal_values_whiten_to_exactly_0(constant):
    # Odd sizes, so that the rounded sum of many equal numbers is no multiple of the number.
    values, mask = torch.full((67, 53), constant), torch.arange(53).expand(67, 53) < 47
    assert torch.equal(whiten(values, mask), torch.zeros(67, 53))


def test_a_single_kept_value_whitens_to_0():
    assert torch.equal(whiten(torch.tensor([[5.0, 9.0]]), torch.tensor([[True, False]])), torch.zeros(1, 2))


@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_nothing_kept_gives_0_and_not_nan(shape):
    values, mask = torch.full(shape, NAN), torch.zeros(shape, dtype=torch.bool)
    assert masked_mean(values, mask).item() == 0.0
    assert masked_variance(values, mask).item() == 0.0
    assert torch.equal(whiten(values, mask), torch.zeros(shape))


@pytest.mark.parametrize("function", [keep, masked_sum, masked_mean, masked_variance, whiten])
@pytest.mark.parametrize("padding", [0.0, 1e30, INF, -INF, NAN])
def test_padding_content_changes_neither_result_nor_gradient(function, padding):
    weights = torch.tensor([[1.0, -2.0, 5.0], [5.0, 3.0, 0.5]])

    def result_and_gradient(content):
        values = torch.tensor([[1.0, 2.0, content], [content, 4.0, 7.0]], requires_grad=True)
        result = function(values, MASK)
        (result * weights if result.ndim else result).sum().backward()
        return result.detach(), values.grad

    result, gradient = result_and_gradient(padding)
    expected_result, expected_gradient = result_and_gradient(-1.0)
    assert torch.equal(result, expected_result)
    assert torch.equal(gradient, expected_gradient)
    assert torch.equal(gradient[MASK.logical_not()], torch.zeros(2))


@pytest.mark.parametrize("function", [masked_variance, whiten])
def test_gradients_agree_with_finite_differences(function):
    values = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: function(v, MASK), (values,))


def test_half_precision_is_averaged_in_float32():
    values = torch.full((1, 4096), 1.0078125, dtype=torch.bfloat16)
    assert masked_sum(values, torch.ones(1, 4096, dtype=torch.bool)).item() == 4096 * 1.0078125


def test_arguments_are_left_as_they_were():
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    before = values.clone()
    whiten(values, MASK), keep(values, MASK)
    assert torch.equal(values, before)


@pytest.mark.parametrize("function", [keep, masked_sum, masked_mean, masked_variance, whiten])
def test_shapes_that_differ_and_masks_of_numbers_are_refused(function):
    with pytest.raises(ValueError, match=r"mask must have the shape of values \[2, 3\], found \[3\]"):
        function(torch.ones(2, 3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"mask must be torch.bool, found torch.float32"):
        function(torch.ones(2, 3), torch.ones(2, 3))
