import pytest
import torch

from rlhf.oracle.ascent import Settings, ppo
from rlhf.oracle.exact import optimal_logits, regularised_objective
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits
from rlhf.oracle.trajectories import enumerate_trajectories


@pytest.mark.parametrize(("vocabulary", "horizon", "kl_coef"), [(4, 4, 0.5), (5, 3, 0.2), (6, 5, 0.5)])
def test_ppo_converges_to_the_best_policy_near_the_reference(vocabulary, horizon, kl_coef):
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
