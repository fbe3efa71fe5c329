import numpy as np
import pytest

from rlhf.evaluation.statistics.bradley_terry import ranking, strengths


def test_two_policies_by_hand():
    # 3 wins of 4: odds 3 to 1
    assert strengths([[0, 3], [1, 0]]) == pytest.approx([0.0, -np.log(3)])


def test_three_policies_whose_rates_follow_the_model_get_their_strengths_back():
    planted = np.array([0.0, 0.7, -1.1])
    rates = 1 / (1 + np.exp(planted[None, :] - planted[:, None]))
    assert strengths(100 * rates) == pytest.approx(planted, abs=1e-6)


def test_the_likelihood_is_highest_there():
    wins = np.array([[0, 7, 2], [3, 0, 6], [8, 4, 0]], dtype=float)

    def log_likelihood(s):
        return sum(wins[i, j] * -np.log1p(np.exp(s[j] - s[i])) for i in range(3) for j in range(3) if i != j)

    found = strengths(wins)
    best = log_likelihood(found)
    for move in ([0.0, 0.01, 0.0], [0.0, -0.01, 0.0], [0.0, 0.0, 0.01], [0.0, 0.0, -0.01]):
        assert log_likelihood(found + np.array(move)) < best


def test_a_policy_that_never_won_has_no_finite_strength_without_a_prior():
    with pytest.raises(ValueError, match="no strength is finite"):
        strengths([[0, 4], [0, 0]])
    # with half a win on both sides: 4.5 to 0.5
    assert strengths([[0, 4], [0, 0]], prior=0.5) == pytest.approx([0.0, -np.log(9)])


def test_pairs_that_were_not_compared_get_no_prior():
    wins = np.array([[0, 3, 0], [1, 0, 3], [0, 1, 0]], dtype=float)  # a beats b, b beats c, 3 to 1
    assert strengths(wins) == pytest.approx([0.0, -np.log(3), -np.log(9)], abs=1e-6)
    odds = 3.5 / 1.5
    assert strengths(wins, prior=0.5) == pytest.approx([0.0, -np.log(odds), -2 * np.log(odds)], abs=1e-6)


def test_a_ranking_has_intervals_over_prompts_and_the_first_policy_at_zero():
    generator = np.random.default_rng(0)
    names = ["a", "b", "c"]
    planted = {"a": 0.0, "b": 1.0, "c": 2.0}
    preferences = {
        (one, two): (generator.random(600) < 1 / (1 + np.exp(planted[two] - planted[one]))).astype(float)
        for place, one in enumerate(names)
        for two in names[place + 1 :]
    }
    found = ranking(names, preferences, generator=np.random.default_rng(1), num_resamples=200)
    assert (found["a"].mean, found["a"].low, found["a"].high) == (0.0, 0.0, 0.0)
    for name in ("b", "c"):
        assert found[name].low < planted[name] < found[name].high
        assert found[name].high - found[name].low < 0.6


def test_a_ranking_adds_half_a_win_to_both_sides_of_each_pair():
    won = {("b", "a"): np.ones(4)}
    found = ranking(["a", "b"], won, generator=np.random.default_rng(0), num_resamples=20)
    assert found["b"].mean == pytest.approx(np.log(4.5 / 0.5), abs=1e-6)
