import numpy as np
import pytest

from rlhf.evaluation.statistics.bootstrap import Interval, win_rate_interval
from rlhf.evaluation.statistics.matrix import preferences_by_score, win_rate_matrix
from rlhf.evaluation.statistics.resampling import by_prompt, draws


def test_preferences_by_score_by_hand():
    assert preferences_by_score(np.array([2.0, 1, 0]), np.array([1.0, 1, 1])).tolist() == [1.0, 0.5, 0.0]


def test_a_matrix_holds_the_paired_win_rates_and_their_mirror_images():
    ours, theirs = np.array([2.0, 1, 0, 5]), np.array([1.0, 1, 1, 4])
    found = win_rate_matrix(["a", "b", "c"], {("a", "b"): preferences_by_score(ours, theirs)}, seed=3)
    rate = win_rate_interval(ours, theirs, generator=np.random.default_rng(3))
    assert found["a"] == {"b": rate} and rate.mean == 2.5 / 4
    assert found["b"] == {"a": Interval(1 - rate.mean, 1 - rate.high, 1 - rate.low)}
    assert found["c"] == {}


def test_several_answers_to_a_prompt_count_as_one_prompt():
    wins = np.array([1.0, 0.0, 1.0, 1.0, 0.0, 0.5])
    plain = win_rate_matrix(["a", "b"], {("a", "b"): wins}, seed=0)
    copied = win_rate_matrix(["a", "b"], {("a", "b"): wins.repeat(3)}, seed=0, samples_per_prompt=3)
    assert copied == plain
    assert by_prompt([1, 0, 1, 1], 2).tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="not 3 for each prompt"):
        by_prompt([1, 0, 1, 1], 3)


def test_a_resample_draws_as_many_prompts_as_there_are():
    counts = draws(7, 100, np.random.default_rng(0))
    assert counts.shape == (100, 7) and (counts.sum(1) == 7).all() and counts.std() > 0
