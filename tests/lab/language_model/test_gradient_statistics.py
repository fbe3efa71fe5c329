import numpy as np
import pytest
import torch

from rlhf.lab.language_model.gradient_statistics import (
    BLOCK,
    cosine_of_halves,
    cosine_of_sums,
    cosines_to_rest,
    inner_products,
    merged,
    resample_counts,
    signal_to_noise,
)


def gram_of(rows):
    return inner_products(rows, rows)


def test_inner_products_are_those_of_float64_across_the_blocks():
    numbers = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(n, BLOCK + 3, generator=numbers) for n in (2, 3))
    exact = (ours.double() @ theirs.double().T).numpy()
    assert np.allclose(inner_products(ours, theirs), exact, rtol=0, atol=1e-6)


def test_the_ratio_of_a_case_worked_by_hand():
    # Gradients (3, 1), (3, -1), (3, 0): products of pairs 9 - 1, 9, 9, mean 26/3; squares 10, 10, 9, mean 29/3.
    # |G|^2 = 26/3, tr Sigma = 29/3 - 26/3 = 1 (the sample variance (1 + 1 + 0) / 2).
    rows = torch.tensor([[3.0, 1.0], [3.0, -1.0], [3.0, 0.0]])
    assert signal_to_noise(gram_of(rows)) == pytest.approx([26 / 3])


def test_the_ratio_is_unbiased_where_the_squared_length_of_the_mean_is_not():
    # G has length 1, the noise variance 1 in each of 50 numbers: |G|^2 / tr Sigma = 1/50. With the squared length of
    # the mean it would be 1/50 + 1/16. The variance of |G|^2 from M = 16 gradients is 2 * 50 / (M (M - 1)) + 4 / M =
    # 0.67, so that the mean of 2000 batches is within 4 * sqrt(0.67 / 2000) = 0.073, and the ratio within a 50th of it.
    numbers = torch.Generator().manual_seed(1)
    rows = torch.randn(2000, 16, 50, generator=numbers, dtype=torch.float64)
    rows[:, :, 0] += 1.0
    grams = rows @ rows.transpose(1, 2)
    squares = grams.diagonal(dim1=1, dim2=2).sum(1)
    signals = (grams.sum((1, 2)) - squares) / (16 * 15)
    ratios = np.array([signal_to_noise(gram.numpy())[0] for gram in grams])
    assert float(signals.mean()) == pytest.approx(1.0, abs=0.073)
    assert ratios.mean() == pytest.approx(1 / 50, abs=0.073 / 50)


@pytest.mark.slow
def test_the_ratio_does_not_change_with_the_scale_and_grows_with_the_minibatch():
    numbers = torch.Generator().manual_seed(2)
    rows = torch.randn(4000, 8, generator=numbers, dtype=torch.float64) + 0.5
    gram = gram_of(rows)
    assert signal_to_noise(9.0 * gram) == pytest.approx(signal_to_noise(gram))
    # |G|^2 / tr Sigma = 8 * 0.25 / 8 = 1/4; four times the episodes, four times the ratio. The variance of |G|^2 = 2 is
    # about 4 * 2 / 4000: 4 deviations are 9 %.
    assert signal_to_noise(gram) == pytest.approx([0.25], rel=0.1)
    assert signal_to_noise(merged(gram, 4)) == pytest.approx([1.0], rel=0.1)


def test_a_minibatch_drawn_twice_is_no_pair_with_itself():
    numbers = torch.Generator().manual_seed(3)
    rows = torch.randn(4, 6, generator=numbers, dtype=torch.float64)
    gram = gram_of(rows)
    # Drawn: 0, 0, 1, 3. Pairs of different minibatches: (0, 1) twice, (0, 3) twice, (1, 3) once.
    signal = (2 * gram[0, 1] + 2 * gram[0, 3] + gram[1, 3]) / 5
    noise = (2 * gram[0, 0] + gram[1, 1] + gram[3, 3]) / 4 - signal
    assert signal_to_noise(gram, np.array([[2.0, 1.0, 0.0, 1.0]])) == pytest.approx([signal / noise])


def test_resamples_have_the_size_of_the_sample_and_differ():
    counts = resample_counts(10, 50, np.random.default_rng(0))
    assert counts.shape == (50, 10) and (counts.sum(1) == 10).all()
    assert len({tuple(row) for row in counts}) == 50


def test_the_cosine_to_the_rest_leaves_the_minibatch_itself_out():
    numbers = torch.Generator().manual_seed(4)
    ours, theirs = (torch.randn(5, 7, generator=numbers, dtype=torch.float64) for _ in range(2))
    found = cosines_to_rest(gram_of(ours), inner_products(ours, theirs), gram_of(theirs))
    for place in range(5):
        rest = torch.cat([theirs[:place], theirs[place + 1 :]]).sum(0)
        exact = torch.nn.functional.cosine_similarity(ours[place], rest, dim=0)
        assert found[place] == pytest.approx(float(exact))


def test_orthogonal_gradients_have_cosine_0_to_the_rest_and_1_to_themselves():
    gram = gram_of(torch.eye(6))
    assert cosines_to_rest(gram, gram, gram) == pytest.approx([0.0] * 6)
    assert cosine_of_sums(gram, gram, gram) == pytest.approx(1.0)


def test_the_cosine_of_sums_is_that_of_the_vectors():
    numbers = torch.Generator().manual_seed(5)
    ours, theirs = (torch.randn(4, 9, generator=numbers, dtype=torch.float64) for _ in range(2))
    exact = torch.nn.functional.cosine_similarity(ours.sum(0), theirs.sum(0), dim=0)
    found = cosine_of_sums(gram_of(ours), inner_products(ours, theirs), gram_of(theirs))
    assert found == pytest.approx(float(exact))


def test_halves_are_disjoint():
    # With orthogonal gradients any overlap would show as a cosine above 0; equal ones have cosine 1.
    generator = np.random.default_rng(0)
    assert cosine_of_halves(gram_of(torch.eye(9)), 20, generator) == pytest.approx(0.0)
    assert cosine_of_halves(gram_of(torch.ones(8, 3)), 20, generator) == pytest.approx(1.0)


def test_merged_minibatches_are_sums_and_leave_the_odd_ones_out():
    numbers = torch.Generator().manual_seed(6)
    rows = torch.randn(7, 5, generator=numbers, dtype=torch.float64)
    sums = rows[:6].view(2, 3, 5).sum(1)
    assert np.allclose(merged(gram_of(rows), 3), gram_of(sums))
