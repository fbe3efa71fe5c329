"""What the proofs of the PPO stage run in: `PPO.update` on a tiny language, its every response in the batch.

Nothing stands in for the stage's own code but the policy (a table instead of a language model), the optimizer (which
keeps the gradient instead of stepping) and, where two processes are meant, their sums. Probabilities enter through the
advantages, in which the policy loss is linear. Float32 throughout, as the records ask.
"""

import dataclasses
import threading
from types import SimpleNamespace

import torch
from torch import nn

from rlhf.batches import Rollout
from rlhf.config import PPOConfig
from rlhf.models.policy import PolicyOutput
from rlhf.oracle.exact import regularised_objective
from rlhf.oracle.language import tiny_language
from rlhf.oracle.process import random_logits
from rlhf.oracle.trajectories import enumerate_trajectories
from rlhf.ppo.experience import make_experience
from rlhf.ppo.trainer import PPO
from rlhf.training.sharding.replicated import Replicated
from rlhf.training.telemetry.phases import NO_PHASES

ACCURACY = 2e-6
"""A few thousand float32 terms of size below 1, whose sum is below 1: some tens of eps (6e-8)."""
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

    def gradient_norms(self):
        return torch.zeros(1)

    def step(self, norms, read):
        return {}


class Alone:
    """One process."""

    num, rank = 1, 0
    sharding = Replicated()

    def sums(self, numbers):
        return [float(number) for number in numbers]

    def gathered(self, items):
        return list(items)


class OneOfTwo:
    """One of two processes, which are threads that wait for each other."""

    num = 2
    sharding = Replicated()

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
        """All responses, forced prefixes included, with padding after the longest.

        The stage leaves 0 at forced tokens; here stands what the models say of them, so that nothing may read it.
        """
        rows = []
        for states, actions, mask in zip(self.listed.states, self.listed.actions, self.listed.mask, strict=True):
            prefix = self.language.prefixes[int(states[0])]
            rows.append((prefix, states[mask].tolist(), actions[mask].tolist()))
        num, width = len(rows), max(len(prefix) + len(said) for prefix, _, said in rows) + num_padding
        ids, places = torch.zeros(num, width, dtype=torch.int64), torch.zeros(num, width, dtype=torch.int64)
        mask, forced = torch.zeros(num, width, dtype=torch.bool), torch.zeros(num, width, dtype=torch.bool)
        state_of = self.language.prefixes.index
        for row, (prefix, states, words) in enumerate(rows):
            first, end = len(prefix), len(prefix) + len(words)
            ids[row, :end] = torch.tensor([*prefix, *words])
            places[row, :end] = torch.tensor([*(state_of(prefix[:said]) for said in range(first)), *states])
            forced[row, :first], mask[row, first:end] = True, True

        def looked_up(table):
            return torch.where(mask | forced, table, 0.0).float()

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

    def expected(self, trainer):
        """The experience of all responses, or of all groups of two, with probabilities in its advantages.

        So the loss, a mean, is an expectation.
        """
        rollout, weights = self.rollout(), self.weights
        if trainer.config.num_samples_per_prompt == 2:
            members, weights = self.pairs()
            rollout = rollout.rows(members)
        experience = experience_of(trainer, rollout)
        factor = (weights * float(rollout.response_mask.sum())).float().unsqueeze(1)
        return dataclasses.replace(experience, advantages=experience.advantages * factor)

    def pairs(self):
        """Rows of every two responses from one start, next to each other; of each row half its pair's probability."""
        starts = self.listed.states[:, 0]
        one, other = (starts[:, None] == starts).nonzero(as_tuple=True)
        together = self.weights[one] * self.weights[other] / self.process.start[starts[one]]
        return torch.stack([one, other], 1).flatten(), (together / 2).repeat_interleave(2)

    def exact_gradient(self):
        policy = self.logits.clone().requires_grad_()
        regularised_objective(self.process, policy, self.ref_logits, KL_COEF).backward()
        return policy.grad


def experience_of(trainer, rollout):
    return make_experience(rollout, trainer.kl_control.coef, trainer.config, trainer.processes)


def all_rows(experience):
    return torch.arange(len(experience.rollout.scores))


def assert_equal(found, expected, accuracy=ACCURACY):
    assert float((found - expected).abs().max()) < accuracy
    assert float(expected.abs().max()) > 1e-2, "there is something to find"
