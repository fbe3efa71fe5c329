from itertools import combinations

import numpy as np
import pytest

from rlhf.evaluation.statistics.overoptimisation import best_of_expected, fitted_law

KL = np.array([0.0, 0.3, 1.0, 2.5, 6.0, 14.0, 30.0])


def planted(kind, alpha, beta, *, noise=0.0, num_prompts=200):
    generator = np.random.default_rng(0)
    d = np.sqrt(KL)
    law = d * (alpha - beta * (d if kind == "best_of" else np.log(np.maximum(d, 1e-12))))
    gains = law[:, None] + noise * generator.normal(size=(len(KL), num_prompts))
    kl = np.broadcast_to(KL[:, None], gains.shape) * generator.uniform(0.5, 1.5, size=gains.shape)
    kl = kl * (KL / np.maximum(kl.mean(1), 1e-12))[:, None]  # noisy by prompt, exact in the mean
    return fitted_law(kind, kl, gains, generator=np.random.default_rng(1), num_resamples=200)


@pytest.mark.parametrize(("kind", "turnover"), [("best_of", (1.2 / 0.4) ** 2), ("ppo", np.exp(2 * (1.2 / 0.2 - 1)))])
def test_planted_alpha_and_beta_are_recovered(kind, turnover):
    exact = planted(kind, 1.2, 0.2)
    assert (exact.alpha.mean, exact.beta.mean) == pytest.approx((1.2, 0.2))
    assert exact.turnover_kl == pytest.approx(turnover)
    noisy = planted(kind, 1.2, 0.2, noise=0.5)
    for found, expected in ((noisy.alpha, 1.2), (noisy.beta, 0.2)):
        assert found.low < expected < found.high and found.high - found.low < 0.2


def test_a_score_that_only_rises_has_no_turnover():
    assert planted("best_of", 1.0, -0.1).turnover_kl is None
    assert planted("ppo", 1.0, 0.0005).turnover_kl is None  # so far away that no float holds it


def test_a_law_needs_two_points_away_from_the_start():
    with pytest.raises(ValueError, match="at least two points"):
        fitted_law("ppo", [[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]], generator=np.random.default_rng(0))


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_best_of_n_is_the_mean_over_all_subsets(n):
    proxy = np.array([[3.0, 1.0, 2.0, 5.0, 4.0], [1.0, 1.0, 0.0, 1.0, 2.0]])
    gold = np.array([[1.0, 2.0, 3.0, -1.0, 0.5], [4.0, 0.0, 9.0, 2.0, 1.0]])

    def slow(chosen, known):
        means = []
        for subset in combinations(range(5), n):
            best = max(chosen[i] for i in subset)
            # Equal ones: each is as likely, over all orders of the answers with that score.
            means.append(np.mean([known[i] for i in range(5) if chosen[i] == best]))
        return np.mean(means)

    expected = [slow(*row) for row in zip(proxy, gold, strict=True)]
    assert best_of_expected(proxy, gold, n) == pytest.approx(expected)
    with pytest.raises(ValueError, match="from 1 to 5"):
        best_of_expected(proxy, gold, 6)
