"""Tests of rlhf.doctor.trial."""

import pytest
import torch

from rlhf.doctor import trial
from rlhf.doctor.examination import assembled
from rlhf.doctor.trial import num_episodes, run_trial, sampled, saved_for_backward, start_states


def test_the_trial_is_the_beginning_of_the_first_batch_and_moves_nothing(config, tiny) -> None:
    parts = assembled(config())
    before = tiny.weights(parts.trainer)
    made = run_trial(parts)
    assert made.ratio_deviation == 0.0
    assert len(made.collected.episodes) == 8
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.weights(parts.trainer).items())
    assert all(master.grad is None for master in parts.trainer.optimizer.weights.masters.values())
    assert parts.trainer.optimizer.num_done == 0


@pytest.mark.slow
def test_the_value_loss_is_that_of_the_first_update(config, tiny) -> None:
    config = config(minibatches=1)
    made = run_trial(assembled(config))
    again = assembled(config)
    result = again.trainer.step(list(start_states(again, 8).prompts))
    assert made.value_loss == pytest.approx(result.updates[0].means["value_loss"], rel=1e-5)


def test_the_number_of_episodes_suits_minibatches_groups_and_the_length_of_responses(config) -> None:
    def number(**changes) -> int:
        made = config(rollout_batch_size=96, **changes)
        return num_episodes(assembled(made).trainer)

    assert number(minibatches=2) == 32
    assert number(minibatches=3, num_samples_per_prompt=4) == 24
    assert number(minibatches=48) == 48
    assert number(minibatches=2, sampling__max_new_tokens=100) == 20


def test_the_samples_of_a_prompt_stand_together(config) -> None:
    parts = assembled(config(num_samples_per_prompt=2, advantage="rloo"))
    prompts = start_states(parts, 8).prompts
    assert [prompts[i] is prompts[i + 1] for i in range(0, 8, 2)] == [True] * 4
    assert prompts[0] is not prompts[2]


def test_a_few_episodes_are_sampled_for_the_sampler(config, monkeypatch) -> None:
    monkeypatch.setattr(trial, "NUM_SAMPLED", 3)
    starts, samples = sampled(assembled(config()))
    assert (len(starts.prompts), len(samples.ended)) == (3, 3)


def test_what_the_graph_saves_is_counted_once_and_without_parameters() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    x = torch.ones(8, 4, requires_grad=True)
    with saved_for_backward() as saved:
        y = (x @ weight).exp()
        z = (y * y).sum()
    # x [8, 4] for the product, and its weight, which is a parameter; y [8, 4] once, for exp and twice for its square.
    assert saved() == 2 * 8 * 4 * 4
    z.backward()
    assert weight.grad is not None
