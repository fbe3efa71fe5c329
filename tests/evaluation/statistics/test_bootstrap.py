import math

import numpy as np
import pytest

from rlhf.evaluation.statistics.bootstrap import mean_difference_interval, mean_interval, win_rate_interval


def generator(seed=0):
    return np.random.default_rng(seed)


def binomial_quantile(probability, n, p):
    """Smallest k with P(X <= k) >= probability for X ~ Binomial(n, p)."""
    total = 0.0
    for k in range(n + 1):
        total += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if total >= probability:
            return k
    return n


@pytest.mark.parametrize(("wins", "n"), [(30, 50), (180, 200), (1, 20)])
def test_the_interval_of_a_win_rate_is_that_of_the_binomial(wins, n):
    # Resampling n prompts of which a share p is won gives Binomial(n, p) / n, so the percentiles are known.
    ours = np.array([1.0] * wins + [0.0] * (n - wins))
    interval = win_rate_interval(ours, np.full(n, 0.5), generator=generator())
    assert interval.mean == wins / n
    assert interval.low * n == pytest.approx(binomial_quantile(0.025, n, wins / n), abs=1)
    assert interval.high * n == pytest.approx(binomial_quantile(0.975, n, wins / n), abs=1)


def test_wins_ties_and_losses_by_hand():
    # win 1, tie 1/2, loss 0, win 1: 2.5 of 4
    interval = win_rate_interval([2, 1, 0, 5], [1, 1, 1, 4], generator=generator())
    assert interval.mean == 2.5 / 4
    assert 0.0 <= interval.low < interval.mean < interval.high <= 1.0


def test_a_policy_against_itself_wins_exactly_half():
    scores = np.arange(10.0)
    interval = win_rate_interval(scores, scores, generator=generator())
    assert (interval.mean, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_swapping_the_sides_mirrors_the_interval():
    ours, theirs = generator(1).normal(size=(2, 40))
    forward = win_rate_interval(ours, theirs, generator=generator())
    backward = win_rate_interval(theirs, ours, generator=generator())
    assert backward.mean == pytest.approx(1 - forward.mean)
    assert backward.low == pytest.approx(1 - forward.high)
    assert backward.high == pytest.approx(1 - forward.low)


def test_the_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = generator(3).normal(loc=2.0, size=400)
    interval = mean_interval(values, generator=generator())
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - half, abs=0.01)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.01)


def test_pairing_removes_what_the_prompts_share():
    hard = generator(4).normal(scale=100.0, size=50)
    interval = mean_difference_interval(hard + 1.0, hard, generator=generator())
    assert interval.mean == pytest.approx(1.0)
    assert interval.high - interval.low < 1e-9


def test_a_wider_level_contains_a_narrower_one():
    values = generator(5).normal(size=30)
    narrow = mean_interval(values, generator=generator(), level=0.5)
    wide = mean_interval(values, generator=generator(), level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_seed_gives_one_interval():
    values = generator(6).normal(size=30)
    assert mean_interval(values, generator=generator(7)) == mean_interval(values, generator=generator(7))
    assert mean_interval(values, generator=generator(7)) != mean_interval(values, generator=generator(8))


def test_blocks_of_resamples_change_nothing(monkeypatch):
    values = generator(9).normal(size=30)
    whole = mean_interval(values, generator=generator(), num_resamples=100)
    monkeypatch.setattr("rlhf.evaluation.statistics.bootstrap._INDICES_AT_ONCE", 7 * 30)
    assert mean_interval(values, generator=generator(), num_resamples=100) == whole


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ([1.0, 2.0], [1.0], "one score per prompt on each side: 2 and 1"),
        ([], [], "ours must be a list of at least one number"),
        ([[1.0]], [[1.0]], r"ours must be a list of at least one number, found shape \[1, 1\]"),
        ([1.0, 2.0], [1.0, math.nan], "theirs must be finite, found nan at row 1"),
        ([math.inf], [1.0], "ours must be finite, found inf at row 0"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused(ours, theirs, message):
    with pytest.raises(ValueError, match=message):
        win_rate_interval(ours, theirs, generator=generator())


@pytest.mark.parametrize(("changes", "message"), [({"level": 1.0}, "level"), ({"num_resamples": 0}, "num_resamples")])
def test_a_level_or_number_of_resamples_without_meaning_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mean_interval([1.0], generator=generator(), **changes)
