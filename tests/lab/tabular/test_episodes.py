"""Tests of rlhf.lab.tabular.episodes."""

import pytest
import torch

from rlhf.functional.advantages import response_return
from rlhf.lab.tabular.episodes import Sampler
from rlhf.oracle.chain import chain
from rlhf.oracle.exact import solve
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits, random_process


def numbers(seed=0):
    return torch.Generator().manual_seed(seed)


def test_sampled_returns_and_visits_are_those_of_the_oracle():
    process = tiny_language(4, 3, numbers()).process
    policies = torch.stack([random_logits(process, numbers(seed)) for seed in (1, 2)])
    num = 20_000
    episodes = Sampler.of(process, 2).draw(policies, num, numbers(3))
    returns = response_return(episodes.rewards, episodes.mask, 1.0).view(2, num)
    for run, policy in enumerate(policies):
        exact = solve(process, policy)
        standard_error = float(returns[run].std()) / num**0.5
        assert float(returns[run].mean()) == pytest.approx(float(exact.objective), abs=5 * standard_error)
        mine = episodes.runs == run
        visits = torch.bincount(episodes.states[mine][episodes.mask[mine]], minlength=process.num_states) / num
        # A state is visited at most once, with a standard error of at most sqrt(1 / 4 / num).
        assert torch.allclose(visits.double(), exact.occupancy, atol=5 * 0.5 / num**0.5)


def test_rewards_of_a_run_are_its_own():
    process = chain(1)
    rewards = torch.stack([process.rewards, 7.0 * process.rewards])
    certain = torch.tensor([[[50.0, 0.0, 0.0]]], dtype=torch.float64).repeat(2, 1, 1)
    episodes = Sampler.of(process, 2, rewards).draw(certain, 3, numbers())
    assert episodes.rewards.tolist() == [[1.0]] * 3 + [[7.0]] * 3
    assert episodes.runs.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_comes_after_the_end_is_masked_and_0():
    episodes = Sampler.of(chain(6), 1).draw(torch.zeros(1, 6, 3, dtype=torch.float64), 400, numbers())
    assert episodes.mask[:, 0].all() and not episodes.mask[:, -1].all()
    for tensor in (episodes.states, episodes.actions, episodes.rewards):
        assert not tensor[episodes.mask.logical_not()].any()
    # An episode goes on exactly while it advances.
    lengths = episodes.mask.sum(1)
    assert ((episodes.actions == 0) & episodes.mask).sum(1).tolist() == [
        length - 1 if reward == 0 else length
        for length, reward in zip(lengths.tolist(), episodes.rewards.sum(1).tolist(), strict=True)
    ]


def test_episodes_begin_where_the_process_begins():
    start = torch.tensor([0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    episodes = Sampler.of(chain(4, start), 1).draw(torch.zeros(1, 4, 3, dtype=torch.float64), 50, numbers())
    assert episodes.states[:, 0].tolist() == [2] * 50


def test_logprobs_are_those_of_each_runs_policy():
    process = tiny_language(4, 3, numbers()).process
    policies = torch.stack([random_logits(process, numbers(seed)) for seed in (1, 2)])
    episodes = Sampler.of(process, 2).draw(policies, 5, numbers())
    logprobs = episodes.logprobs(policies)
    for row in range(10):
        for t in range(episodes.mask.shape[1]):
            state, action = int(episodes.states[row, t]), int(episodes.actions[row, t])
            expected = policies[row // 5, state].log_softmax(-1)[action] if episodes.mask[row, t] else 0.0
            assert float(logprobs[row, t]) == pytest.approx(float(expected))


def test_a_process_with_noise_is_refused():
    with pytest.raises(ValueError, match="processes without noise"):
        Sampler.of(random_process(2, 2, 2, numbers()), 1)
