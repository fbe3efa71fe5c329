"""Proof: PPO with nothing sampled ends at the best policy near the reference.

The proof is a plain function without arguments, so that `test_mutations.py` can call it on a broken formula; the
quickest process comes first, at which a broken formula fails.
"""

import torch

from rlhf.oracle.ascent import Settings, ppo
from rlhf.oracle.exact import optimal_logits, regularised_objective
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits
from rlhf.oracle.trajectories import enumerate_trajectories


def test_ppo_converges_to_the_best_policy_near_the_reference():
    for vocabulary, horizon, kl_coef in ((5, 3, 0.2), (4, 4, 0.5), (6, 5, 0.5)):
        converges(vocabulary, horizon, kl_coef)


def converges(vocabulary, horizon, kl_coef):
    generator = torch.Generator().manual_seed(vocabulary)
    process = tiny_language(vocabulary, horizon, generator).process
    ref_logits = random_logits(process, generator)
    found = ppo(process, ref_logits, Settings(kl_coef=kl_coef, num_batches=50, learning_rate=0.2))
    best = optimal_logits(process, ref_logits, kl_coef)
    listed = enumerate_trajectories(process)

    def distance(logits):
        """Total variation between the distributions of whole responses."""
        return float((listed.probabilities(logits) - listed.probabilities(best)).abs().sum() / 2)

    assert distance(ref_logits) > 0.3
    assert distance(found) < 1e-2
    lost = regularised_objective(process, best, ref_logits, kl_coef) - regularised_objective(
        process, found, ref_logits, kl_coef
    )
    assert 0 <= float(lost) < 5e-3
