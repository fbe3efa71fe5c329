import torch

from rlhf.oracle.chain import chain
from rlhf.oracle.process import random_logits, random_process
from rlhf.oracle.trajectories import enumerate_trajectories


def test_the_chain_has_two_failures_a_state_and_two_ways_to_end_it():
    listed = enumerate_trajectories(chain(3))
    lengths = listed.mask.sum(1).tolist()
    assert sorted(lengths) == [1, 1, 2, 2, 3, 3, 3]
    assert listed.rewards.sum() == 1.0 and listed.rewards.max() == 1.0
    assert listed.dynamics.tolist() == [1.0] * 7


def test_probabilities_add_up_to_1_and_masked_places_hold_0():
    for process in (chain(4), random_process(3, 2, 3, torch.Generator().manual_seed(0))):
        listed = enumerate_trajectories(process)
        logits = random_logits(process, torch.Generator().manual_seed(1))
        assert abs(float(listed.probabilities(logits).sum()) - 1.0) < 1e-12
        padding = listed.mask.logical_not()
        for tensor in (listed.states, listed.actions, listed.rewards, listed.logprobs(logits)):
            assert not tensor[padding].any()


def test_a_trajectory_has_the_product_of_its_probabilities():
    process = random_process(2, 2, 2, torch.Generator().manual_seed(0))
    logits = random_logits(process, torch.Generator().manual_seed(1))
    listed, policy = enumerate_trajectories(process), logits.softmax(-1)
    assert len(listed.states) == 2 * 2 * 2 * 2
    found = listed.probabilities(logits)
    for row, ((first, second), (a, b)) in enumerate(zip(listed.states.tolist(), listed.actions.tolist(), strict=True)):
        slow = process.start[first] * policy[first, a] * process.transitions[first, a, second] * policy[second, b]
        assert abs(float(found[row] - slow)) < 1e-15
        assert listed.rewards[row].tolist() == [float(process.rewards[first, a]), float(process.rewards[second, b])]
