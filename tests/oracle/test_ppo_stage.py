"""Proofs about the PPO stage itself: `PPO.update` on a tiny language, every response of which is in the batch.

Nothing stands in for the stage's own code but the policy (a table instead of a language model), the optimizer (which
keeps the gradient instead of stepping) and, where two processes are meant, their sums. Probabilities enter through the
advantages, in which the policy loss is linear. Float32 throughout, as the records ask.

Every proof is a plain function without arguments, so that `test_mutations.py` can call it on a broken formula.
"""

import dataclasses
import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rlhf.batches import Rollout
from rlhf.config import PPOConfig
from rlhf.models.policy import PolicyOutput
from rlhf.oracle.exact import regularised_objective, sequence_kl, solve
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits
from rlhf.oracle.trajectories import enumerate_trajectories
from rlhf.ppo.experience import make_experience
from rlhf.ppo.trainer import PPO
from rlhf.training.phases import NO_PHASES

ACCURACY = 2e-6
"""A few hundred float32 terms of size below 1, whose sum is below 1: some tens of eps (6e-8)."""
KL_COEF = 0.3
PROMPT = 7
"""The id of the one prompt token, outside the tiny vocabulary."""


class TabularPolicy(nn.Module):
    """Reads sequences as the real policy does, and looks logits and values up by what was said so far."""

    def __init__(self, language, logits, values):
        super().__init__()
        self.places = {prefix: state for state, prefix in enumerate(language.prefixes)}
        self.logits = nn.Parameter(logits.float())
        self.values = nn.Parameter(values.float())

    def forward(self, sequences, num_steps, temperature, *, with_entropy, **of_language_models):
        columns = zip(sequences.rows.tolist(), sequences.columns.tolist(), strict=True)
        states = [self.places[tuple(sequences.input_ids[row, 1:column].tolist())] for row, column in columns]
        distribution = (self.logits[states] / temperature).log_softmax(-1)
        logprobs = distribution.gather(1, sequences.targets[:, None]).squeeze(1)
        return PolicyOutput(
            logprobs=sequences.placed(logprobs, num_steps),
            values=sequences.placed(self.values[states], num_steps),
            entropy=sequences.placed(-(distribution.exp() * distribution).sum(1), num_steps),
        )


class NoStep:
    """An optimizer that leaves the gradients where they are."""

    def step(self):
        return {}


class Alone:
    """One process."""

    num, rank = 1, 0

    def sums(self, numbers):
        return [float(number) for number in numbers]

    def gathered(self, items):
        return list(items)


class OneOfTwo:
    """One of two processes, which are threads that wait for each other."""

    num = 2

    def __init__(self, rank, barrier, shelf):
        self.rank, self.barrier, self.shelf = rank, barrier, shelf

    def gathered(self, items):
        self.shelf[self.rank] = list(items)
        self.barrier.wait(timeout=20)
        everyone = self.shelf[0] + self.shelf[1]
        self.barrier.wait(timeout=20)
        return everyone

    def sums(self, numbers):
        everyone = self.gathered([list(numbers)])
        return [float(sum(column)) for column in zip(*everyone, strict=True)]


def by_two(work):
    """Return what `work(processes)` gives in each of two processes."""
    barrier, shelf, results = threading.Barrier(2), [[], []], [None, None]

    def run(rank):
        try:
            results[rank] = work(OneOfTwo(rank, barrier, shelf))
        except BaseException as error:
            results[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


class Scene:
    """A tiny language with a policy, a reference and a critic that is wrong, and all its responses as a rollout."""

    def __init__(self, start=None):
        seeds = torch.Generator().manual_seed(0)
        self.language = tiny_language(4, 3, seeds)
        self.process = self.language.process if start is None else self.language.beginning_at(start)
        self.logits, self.ref_logits = (random_logits(self.process, seeds).float().double() for _ in range(2))
        self.critic = torch.randn(self.process.num_states, dtype=torch.float64, generator=seeds).float().double()
        self.listed = enumerate_trajectories(self.process)
        self.weights = self.listed.probabilities(self.logits)

    def trainer(self, processes=None, **changes):
        config = PPOConfig.model_validate({
            "output_dir": "x", "model": {"path": "m"}, "prompts": {"path": "p"}, "steps": 1, "kl_coef": KL_COEF,
            "rewards": [{"kind": "function", "path": "r.py:r"}], "whiten_advantages": False, **changes,
        })  # fmt: skip
        policy = TabularPolicy(self.language, self.logits, self.critic)
        return PPO(policy, SimpleNamespace(phases=NO_PHASES), NoStep(), config, processes or Alone(), None)

    def rollout(self, values=None, num_padding=2):
        """All responses, forced prefixes included, with padding after the longest."""
        rows = []
        for states, actions, mask in zip(self.listed.states, self.listed.actions, self.listed.mask, strict=True):
            prefix = self.language.prefixes[int(states[0])]
            rows.append((prefix, states[mask].tolist(), actions[mask].tolist()))
        num, width = len(rows), max(len(prefix) + len(said) for prefix, _, said in rows) + num_padding
        ids, places = torch.zeros(num, width, dtype=torch.int64), torch.zeros(num, width, dtype=torch.int64)
        mask, forced = torch.zeros(num, width, dtype=torch.bool), torch.zeros(num, width, dtype=torch.bool)
        for row, (prefix, states, said) in enumerate(rows):
            first, end = len(prefix), len(prefix) + len(said)
            ids[row, :end] = torch.tensor([*prefix, *said])
            places[row, first:end] = torch.tensor(states)
            forced[row, :first], mask[row, first:end] = True, True

        def looked_up(table):
            return torch.where(mask, table, 0.0).float()

        of_tokens = [logits.log_softmax(-1)[places].gather(2, ids[..., None])[..., 0] for logits in self.tables]
        return Rollout(
            prompt_ids=torch.full((num, 1), PROMPT), prompt_mask=torch.ones(num, 1, dtype=torch.bool),
            response_ids=ids, response_mask=mask, forced=forced,
            logprobs=looked_up(of_tokens[0]), ref_logprobs=looked_up(of_tokens[1]),
            values=looked_up((self.critic if values is None else values)[places]),
            scores=self.listed.rewards.sum(1).float(), token_scores=torch.zeros(num, width),
            ended=torch.ones(num, dtype=torch.bool),
        )  # fmt: skip

    @property
    def tables(self):
        return self.logits, self.ref_logits

    def weighed(self, experience):
        """The experience with probabilities in its advantages, so that the loss, a mean, is an expectation."""
        num_tokens = float(experience.rollout.response_mask.sum())
        factor = (self.weights * num_tokens).float().unsqueeze(1)
        return dataclasses.replace(experience, advantages=experience.advantages * factor)

    def exact_gradient(self):
        policy = self.logits.clone().requires_grad_()
        regularised_objective(self.process, policy, self.ref_logits, KL_COEF).backward()
        return policy.grad


def experience_of(trainer, rollout):
    return make_experience(rollout, trainer.kl_control.coef, trainer.config, trainer.processes)


def assert_equal(found, expected, accuracy=ACCURACY):
    assert float((found - expected).abs().max()) < accuracy
    assert float(expected.abs().max()) > 1e-2, "there is something to find"


RUNGS = [
    {"advantage": "trajectory"},
    {"advantage": "reward_to_go"},
    {"advantage": "baseline", "value_coef": 0.0},
    {"advantage": "gae", "gae_lambda": 1.0, "value_coef": 0.0},
    {"advantage": "gae", "gae_lambda": 1.0, "value_coef": 0.0, "objective": "policy_gradient"},
    {"advantage": "gae", "gae_lambda": 1.0, "value_coef": 0.0, "clip_range": None},
]


def test_an_update_follows_the_exact_gradient_of_reward_less_kl_however_it_is_cut():
    scene = Scene()
    for rung in RUNGS:
        for size in (100, 5):  # one microbatch, or many with unequal numbers of tokens
            trainer = scene.trainer(**rung)
            batch = scene.weighed(experience_of(trainer, scene.rollout()))
            update = trainer.update(batch, list(torch.arange(len(scene.weights)).split(size)))
            assert_equal(-trainer.policy.logits.grad, scene.exact_gradient())
            assert not trainer.policy.values.grad.any()
            assert update.means["approx_kl"] < 1e-10 and abs(update.means["ratio"] - 1.0) < 1e-6


def test_with_resets_an_update_follows_the_exact_gradient_of_the_objective_from_those_starts():
    """Forced tokens are state: the policy that would have said them is not moved, nor is the critic of their states."""
    scene = Scene({(): 0.2, (1,): 0.3, (0, 2): 0.5})
    trainer = scene.trainer(advantage="baseline", value_coef=0.0)
    rollout = scene.rollout()
    assert rollout.forced.sum(1).unique().tolist() == [0, 1, 2]
    batch = scene.weighed(experience_of(trainer, rollout))
    assert not batch.rewards[rollout.response_mask.logical_not()].any()
    trainer.update(batch, [torch.arange(len(scene.weights))])
    assert_equal(-trainer.policy.logits.grad, scene.exact_gradient())


def test_with_resets_the_value_loss_reads_no_forced_token():
    """Episodes that all begin at (0, 2): the values of (), (0,) and every state not visited get no gradient."""
    scene = Scene({(0, 2): 1.0})
    trainer = scene.trainer(value_coef=1.0, advantage="gae")
    rollout = scene.rollout()
    trainer.update(experience_of(trainer, rollout), [torch.arange(len(rollout.scores))])
    gradient = trainer.policy.values.grad
    here = scene.language.prefixes.index((0, 2))
    assert gradient.nonzero().flatten().tolist() == [here]
    # One token a row: V - mean return, the rewards being score - coef * log-ratio.
    tokens = rollout.response_mask.sum()
    returns = (experience_of(trainer, rollout).rewards.sum(1)).double()
    assert abs(float(gradient[here]) - float((scene.critic[here] - returns).sum() / tokens)) < ACCURACY


def test_two_processes_have_the_gradient_of_one():
    """Each holds rows of another length; the divisor is the tokens of both."""
    scene = Scene()
    trainer = scene.trainer(advantage="baseline", value_coef=0.5)
    whole = scene.weighed(experience_of(trainer, scene.rollout()))
    trainer.update(whole, [torch.arange(len(scene.weights))])
    order = scene.listed.mask.sum(1).argsort()
    shares = order[:9], order[9:]
    tokens = [int(scene.listed.mask[share].sum()) for share in shares]
    assert tokens[0] * 3 < tokens[1]

    def work(processes):
        own = scene.trainer(processes, advantage="baseline", value_coef=0.5)
        update = own.update(whole, [shares[processes.rank]])
        return own.policy.logits.grad, own.policy.values.grad, update.means

    (first, first_values, means), (second, second_values, same) = by_two(work)
    assert means == same
    assert_equal(first + second, trainer.policy.logits.grad)
    assert_equal(first_values + second_values, trainer.policy.values.grad)


def test_two_processes_whiten_over_the_batch_of_both():
    scene = Scene()
    rollout = scene.rollout()
    expected = experience_of(scene.trainer(whiten_advantages=True), rollout).advantages
    assert abs(float(expected[rollout.response_mask].mean())) < ACCURACY
    shares = torch.arange(9), torch.arange(9, len(scene.weights))

    def work(processes):
        own = scene.trainer(processes, whiten_advantages=True)
        return experience_of(own, rollout.rows(shares[processes.rank])).advantages

    assert_equal(torch.cat(by_two(work)), expected, 1e-5)


def test_returns_are_taken_before_whitening_and_are_targets_of_the_exact_values():
    """With the exact critic the expected return of every state is its value."""
    scene = Scene()
    kl = (scene.logits.softmax(1) * (scene.logits.log_softmax(1) - scene.ref_logits.log_softmax(1))).sum(1)
    shaped = dataclasses.replace(scene.process, rewards=scene.process.rewards - KL_COEF * kl[:, None])
    solution = solve(shaped, scene.logits)
    trainer = scene.trainer(whiten_advantages=True, gae_lambda=1.0)
    batch = experience_of(trainer, scene.rollout(values=solution.values, num_padding=0))
    sums = torch.zeros_like(solution.values)
    flat = (scene.weights[:, None] * batch.returns.double() * scene.listed.mask).flatten()
    sums.index_add_(0, scene.listed.states.flatten(), flat)
    assert_equal(sums, solution.occupancy * solution.values)


def test_the_sequence_kl_is_the_exact_kl_and_holds_an_adaptive_coefficient_at_its_target():
    scene = Scene()
    exact = float(sequence_kl(scene.process, scene.logits, scene.ref_logits))
    control = {"controller": "adaptive", "target": exact, "horizon": 100}
    trainer = scene.trainer(kl_control=control)
    batch = experience_of(trainer, scene.rollout())
    # A mean over episodes, so that probabilities enter as in `weighed`.
    factor = (scene.weights * len(scene.weights)).float().unsqueeze(1)
    measured = trainer.sequence_kl(dataclasses.replace(batch, kl=batch.kl * factor))
    assert abs(measured - exact) < ACCURACY
    for share, expected in ((1.0, KL_COEF), (1.1, KL_COEF * 1.064), (5.0, KL_COEF * 1.128), (0.0, KL_COEF * 0.872)):
        trainer.kl_control.coef = KL_COEF
        trainer.kl_control.update(share * measured, 64)  # 64 episodes of 100: errors 0, 0.1, clipped 0.2 and -0.2
        assert trainer.kl_control.coef == pytest.approx(expected, rel=1e-5)


def test_padding_enters_no_mean_of_an_update():
    scene = Scene()
    seen = []
    for num_padding in (0, 40):
        trainer = scene.trainer()
        rollout = scene.rollout(num_padding=num_padding)
        with torch.no_grad():
            trainer.policy.logits += 0.3 * random_logits(scene.process, torch.Generator().manual_seed(1)).float()
        update = trainer.update(experience_of(trainer, rollout), [torch.arange(len(scene.weights))])
        seen.append(update.means)
        log_ratio = trainer.policy.logits.detach().log_softmax(1) - scene.logits.log_softmax(1)
        kept = log_ratio[scene.listed.states, scene.listed.actions][scene.listed.mask]
        assert update.means["approx_kl"] == pytest.approx(float(kept.square().mean() / 2), rel=1e-5)
        assert update.means["ratio"] == pytest.approx(float(kept.exp().mean()), rel=1e-5)
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)


def test_the_entropy_bonus_pushes_towards_entropy():
    scene = Scene()
    trainer = scene.trainer(entropy_coef=0.5, advantage="reward_to_go")
    batch = experience_of(trainer, scene.rollout())
    still = dataclasses.replace(batch, advantages=torch.zeros_like(batch.advantages))
    trainer.update(still, [torch.arange(len(scene.weights))])
    policy = scene.logits.clone().requires_grad_()
    distribution = policy.log_softmax(1)
    entropy = -(distribution.exp() * distribution).sum(1)
    (0.5 * entropy[scene.listed.states][scene.listed.mask].mean()).backward()
    assert_equal(-trainer.policy.logits.grad, policy.grad)
