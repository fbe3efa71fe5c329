import numpy as np
import pytest

from rlhf.evaluation.statistics.best_of_n import kl_bound, kl_of_winners


def test_the_bound_by_hand():
    assert kl_bound(1) == 0.0
    assert kl_bound(4) == pytest.approx(np.log(4) - 0.75)
    with pytest.raises(ValueError, match="at least 1"):
        kl_bound(0)


def enumerated(masses, n):
    """KL of the best of n draws, with rising scores: an answer of cumulated mass F and mass p has F^n - (F - p)^n."""
    upper = np.cumsum(masses)
    chosen = upper**n - (upper - masses) ** n
    return float((chosen * np.log(chosen / masses)).sum())


@pytest.mark.parametrize("n", [2, 4, 16])
@pytest.mark.parametrize("top", [0.01, 0.2, 0.7])
def test_the_estimate_is_exact_where_one_answer_is_frequent_and_the_best(n, top):
    rest = np.full(20_000, (1 - top) / 20_000)
    exact = enumerated(np.append(rest, top), n)
    assert kl_of_winners([np.log(top)], n)[0] == pytest.approx(exact, abs=2e-3)
    assert exact < kl_bound(n)


def test_rare_winners_give_the_bound_and_a_certain_one_gives_nothing():
    assert kl_of_winners([-40.0, -15.0, 0.0, 1e-9], 8) == pytest.approx([kl_bound(8), kl_bound(8), 0.0, 0.0], abs=1e-5)
