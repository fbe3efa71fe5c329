import numpy as np
import pytest

from rlhf.evaluation.statistics.length_control import length_controlled


def controlled(preferences, differences, **options):
    return length_controlled(preferences, differences, generator=np.random.default_rng(0), **options)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_answers_of_equal_length_leave_the_win_rate_as_it_is():
    found = controlled([1, 0, 1, 0.5, 1, 0, 1, 1], [0] * 8, num_resamples=50)
    assert found.rate.mean == pytest.approx(5.5 / 8, abs=1e-3) and found.slope == 0.0


def test_a_saturated_case_by_hand():
    # d is +1 or -1, so tanh(d / std) is +-tanh(1): each group's share of wins fixes its log odds exactly.
    # longer: 3 of 4 won, log odds log 3; shorter: 2 of 4 won, log odds 0 -> theta = log(3) / 2, phi = theta / tanh(1).
    found = controlled([1, 1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, -1, -1, -1, -1], num_resamples=50)
    assert found.rate.mean == pytest.approx(sigmoid(np.log(3) / 2), abs=1e-3)
    assert found.slope == pytest.approx(np.log(3) / 2 / np.tanh(1), abs=3e-3)


@pytest.mark.slow
def test_planted_strength_and_preference_for_length_are_recovered():
    generator = np.random.default_rng(1)
    differences = generator.normal(20, 30, 6000)
    wins = generator.random(6000) < sigmoid(-0.4 + 1.5 * np.tanh(differences / differences.std()))
    found = controlled(wins.astype(float), differences, num_resamples=200)
    assert found.rate.low < sigmoid(-0.4) < found.rate.high and found.rate.high - found.rate.low < 0.04
    assert found.slope == pytest.approx(1.5, abs=0.15)
    assert wins.mean() > 0.5 > found.rate.high  # it wins by length alone


def test_a_policy_that_wins_everything_has_a_finite_rate():
    found = controlled([1.0] * 8, [1, 2, 3, 4, 5, 6, 7, 8], num_resamples=50)
    assert 0.99 < found.rate.mean <= 1.0 and np.isfinite(found.slope)


def test_the_answers_to_one_prompt_are_drawn_together():
    wins, differences = np.tile([1.0, 0.0, 0.0, 1.0, 1.0], 8), np.tile([3.0, -3.0, 1.0, -1.0, -3.0], 8)
    wide = controlled(wins.repeat(4), differences.repeat(4), samples_per_prompt=4, num_resamples=500).rate
    plain = controlled(wins, differences, num_resamples=500).rate
    narrow = controlled(wins.repeat(4), differences.repeat(4), num_resamples=500).rate
    assert wide.high - wide.low == pytest.approx(plain.high - plain.low, rel=0.05)
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="as many preferences as length differences"):
        controlled([1, 0], [1])
