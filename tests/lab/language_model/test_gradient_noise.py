import numpy as np
import pytest
import torch

from rlhf.batches import join
from rlhf.functional.advantages import gae, reward_to_go, trajectory_return
from rlhf.functional.groups import rloo
from rlhf.lab.language_model.gradient_batch import QUICK, SAMPLES
from rlhf.lab.language_model.gradient_noise import (
    REFERENCE,
    RUNGS,
    frozen_states,
    measure,
    minibatch_gradients,
    on_rung,
    run,
)
from rlhf.lab.section import Settings
from rlhf.ppo.experience import make_experience


def experience(parts, collected, name):
    stage = on_rung(parts.trainer, RUNGS[name])
    return stage, make_experience(collected.rollout, 0.05, stage.config, parts.trainer.processes)


def gradients(parts, collected, name, minibatches):
    stage, made = experience(parts, collected, name)
    return minibatch_gradients(stage, made, minibatches, [None] * len(minibatches))


def test_the_rungs_weigh_the_same_batch_by_the_functions_of_the_ladder_unwhitened(parts, collected):
    made = {name: experience(parts, collected, name)[1] for name in RUNGS}
    first = made["trajectory"]
    for name in RUNGS:
        assert made[name].rollout is collected.rollout
        assert torch.equal(made[name].rewards, first.rewards)
    rewards, mask, values = first.rewards, collected.rollout.response_mask, collected.rollout.values
    assert torch.equal(first.advantages, trajectory_return(rewards, mask, 1.0))
    assert torch.equal(made["reward_to_go"].advantages, reward_to_go(rewards, mask, 1.0))
    assert torch.equal(made["gae, lambda 0.95"].advantages, gae(rewards, values, mask, 1.0, 0.95))
    assert torch.equal(made["gae, lambda 0"].advantages, gae(rewards, values, mask, 1.0, 0.0))
    assert torch.equal(made["rloo"].advantages, rloo(rewards, mask, 1.0, SAMPLES))
    torch.testing.assert_close(made["baseline"].advantages, gae(rewards, values, mask, 1.0, 1.0))


@pytest.mark.parametrize("name", ["reward_to_go", "gae, lambda 0.95"])
def test_the_gradients_are_those_of_the_policy_loss_alone_and_their_mean_is_that_of_the_whole_batch(
    parts, collected, name
):
    minibatches = list(torch.arange(len(collected.episodes)).split(QUICK.episodes_each))
    found = gradients(parts, collected, name, minibatches).mean(0)
    _, made = experience(parts, collected, name)
    rollout, policy = collected.rollout, parts.trainer.policy
    mask = rollout.response_mask
    sequences = join(rollout.prompt_ids, rollout.prompt_mask, rollout.response_ids, mask, rollout.forced)
    logprobs = policy(sequences, mask.shape[1], 1.0).logprobs
    loss = -(made.advantages * logprobs)[mask].mean()
    weights = [weight for weight in policy.lm.parameters() if weight.requires_grad]
    exact = torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-6)
    assert float(exact.norm()) > 0


def test_known_states_of_frozen_blocks_change_no_gradient(parts, collected):
    minibatches = list(torch.arange(len(collected.episodes)).split(QUICK.episodes_each))
    stage, made = experience(parts, collected, "reward_to_go")
    known = [frozen_states(parts.trainer, collected, rows) for rows in minibatches]
    assert all(states is not None for states in known)
    with_states = minibatch_gradients(stage, made, minibatches, known)
    assert torch.equal(with_states, gradients(parts, collected, "reward_to_go", minibatches))


@pytest.mark.slow
def test_measuring_moves_no_weight_and_leaves_no_gradient(parts):
    before = {name: weight.clone() for name, weight in parts.trainer.policy.named_parameters()}
    measure(parts, QUICK, 0)
    for name, weight in parts.trainer.policy.named_parameters():
        assert torch.equal(weight, before[name]) and weight.grad is None


@pytest.mark.slow
def test_every_rung_is_measured_against_the_reference_on_the_same_minibatches(parts):
    batch, measured = measure(parts, QUICK, 0)
    own = measured[REFERENCE]
    assert np.array_equal(own.cross, own.gram) and list(measured) == list(RUNGS)
    for one in measured.values():
        assert one.gram.shape == one.cross.shape == (QUICK.num_minibatches, QUICK.num_minibatches)
        assert np.array_equal(one.reference, own.gram)
    assert batch.num_episodes == QUICK.num_minibatches * QUICK.episodes_each
    # Before its first token nothing was paid: the two rungs differ by KL terms, and this policy has hardly moved.
    assert 0 <= batch.kl_share < 0.1


@pytest.mark.slow
def test_the_section_is_the_same_for_the_same_seed(policy):
    first, second = (run(Settings(model=policy, quick=True)) for _ in range(2))
    assert first == second
    assert [row[0] for row in first.tables[0].rows] == list(RUNGS)
    assert run(Settings(model=policy, quick=True, seed=1)).tables != first.tables
