"""Proofs: the closed forms against sums over every outcome of scores and noise, through the estimators.

Every proof is a plain function without arguments, so that `test_mutations.py` can call it on a broken formula.
"""

from itertools import product

import pytest
import torch

from rlhf.functional import advantages
from rlhf.oracle import second_moments


def outcomes(horizon):
    """Every run of scores and of noise, each +1 or -1 with equal chance."""
    signs = torch.tensor(list(product([1.0, -1.0], repeat=2 * horizon)), dtype=torch.float64)
    return signs[:, :horizon], signs[:, horizon:]


def enumerated(horizon, estimate, noise):
    scores, signs = outcomes(horizon)
    rewards = 1.0 + noise**0.5 * signs
    mask = torch.ones_like(rewards, dtype=torch.bool)
    values = torch.arange(horizon, 0, -1, dtype=torch.float64).expand(rewards.shape)
    gradient = (scores * estimate(rewards, values, mask)).sum(1)
    assert abs(float(gradient.mean())) < 1e-12
    return float(gradient.square().mean())


RUNGS = {
    "whole trajectory": (lambda r, v, m: advantages.trajectory_return(r, m, 1.0), second_moments.whole_trajectory),
    "reward to go": (lambda r, v, m: advantages.reward_to_go(r, m, 1.0), second_moments.reward_to_go),
    "baseline": (lambda r, v, m: advantages.baseline(r, v, m, 1.0), second_moments.baseline),
    "lambda 0": (lambda r, v, m: advantages.gae(r, v, m, 1.0, 0.0), lambda h, n: second_moments.gae(h, 0.0, n)),
    "lambda 0.7": (lambda r, v, m: advantages.gae(r, v, m, 1.0, 0.7), lambda h, n: second_moments.gae(h, 0.7, n)),
    "lambda 1": (lambda r, v, m: advantages.gae(r, v, m, 1.0, 1.0), lambda h, n: second_moments.gae(h, 1.0, n)),
}


def test_second_moments_are_what_the_derivation_says():
    for (rung, (estimate, formula)), noise, horizon in product(RUNGS.items(), (0.0, 1.0, 0.3), range(1, 7)):
        found = enumerated(horizon, estimate, noise)
        assert found == pytest.approx(formula(horizon, noise), rel=1e-12, abs=1e-12), (rung, noise, horizon)


def test_the_lectures_numbers():
    assert [second_moments.whole_trajectory(h) for h in (1, 4, 64)] == [1, 64, 64**3]
    assert [second_moments.reward_to_go(h) for h in (1, 4, 64)] == [1, 30, 64 * 65 * 129 / 6]
    assert second_moments.reward_to_go(1024) / second_moments.whole_trajectory(1024) == pytest.approx(1 / 3, rel=2e-3)
    assert [second_moments.gae(h, 0.0) for h in (1, 4, 64)] == [1, 4, 64]
    assert second_moments.gae(5, 1.0) == second_moments.baseline(5) == 15
    # Any lambda below 1 ends in a straight line of slope 1 / (1 - lambda^2).
    assert second_moments.gae(4001, 0.95) - second_moments.gae(4000, 0.95) == pytest.approx(1 / (1 - 0.95**2))
