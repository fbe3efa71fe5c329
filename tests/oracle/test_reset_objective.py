"""The expected gradient of PPO with resets is the gradient of the reset objective: by enumeration in float64.

A tiny language of four tokens, of which the last is the EOS, and responses of at most three. The objective

    J(theta) = sum over starts s of rho(s) * E[score(s + continuation) - kl_coef * KL of the continuation]

is written as a recursion over prefixes and differentiated; the expectation of the loss is a sum over every start and
every continuation, on tensors laid out as a rollout with forced tokens is.
"""

from collections import defaultdict
from itertools import product

import pytest
import torch
from torch import Tensor

from rlhf.data.records import Demonstration, Prompt
from rlhf.functional.advantages import gae, shaped_rewards
from rlhf.functional.kl import kl_estimate
from rlhf.functional.losses import policy_loss
from rlhf.functional.masking import keep
from rlhf.ppo.starts.demonstrations import Ends
from rlhf.ppo.starts.resets import Resets

VOCABULARY, HORIZON, KL_COEF, FRACTION = 4, 3, 0.3, 0.4
EOS = VOCABULARY - 1
PREFIXES = [prefix for length in range(HORIZON) for prefix in product(range(EOS), repeat=length)]
PLACE = {prefix: place for place, prefix in enumerate(PREFIXES)}
PROMPT = Prompt("", (9,), "", {})
SHOWN = [Demonstration(PROMPT, (0, 1, 2)), Demonstration(PROMPT, (0,)), Demonstration(PROMPT, (2, 2))]

Words = tuple[int, ...]


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LOGITS, REFERENCE = random(len(PREFIXES), VOCABULARY, seed=1), random(len(PREFIXES), VOCABULARY, seed=2)
SCORES: dict[Words, float] = defaultdict(float)
for each in PREFIXES:
    for last in range(VOCABULARY):
        SCORES[(*each, last)] = float(random(1, seed=100 + 7 * PLACE[each] + last))


def start_probabilities() -> dict[Words, float]:
    """How often an episode begins after each prefix, as `Resets` draws: coin, demonstration, cut."""
    resets = Resets(
        SHOWN, lambda ids, longest, progress: range(1, longest + 1), Ends((EOS,), (), None), torch.Generator(),
        fraction=FRACTION, max_new_tokens=HORIZON, num_steps=1,
    )  # fmt: skip
    rho: dict[Words, float] = defaultdict(float)
    rho[()] = 1 - FRACTION
    for demonstration in resets.pool():
        lengths = resets.lengths(demonstration)
        for length in lengths:
            rho[demonstration.response_ids[:length]] += FRACTION / len(SHOWN) / len(lengths)
    return rho


def is_over(words: Words) -> bool:
    return len(words) == HORIZON or words[-1:] == (EOS,)


def objective(logits: Tensor) -> Tensor:
    """J by recursion: the value of a prefix is the mean over its tokens of what follows, less their KL."""
    logprobs, ref = logits.log_softmax(-1), REFERENCE.log_softmax(-1)

    def value(words: Words) -> Tensor:
        if is_over(words):
            return torch.tensor(SCORES[words], dtype=torch.float64)
        place = PLACE[words]
        total = torch.zeros((), dtype=torch.float64)
        for token in range(VOCABULARY):
            penalty = KL_COEF * (logprobs[place, token] - ref[place, token])
            total = total + logprobs[place, token].exp() * (value((*words, token)) - penalty)
        return total

    return sum((weight * value(start) for start, weight in start_probabilities().items()), torch.zeros(()).double())


def continuations(start: Words) -> list[Words]:
    return [start] if is_over(start) else [w for token in range(VOCABULARY) for w in continuations((*start, token))]


def expected_gradient(*, forced_are_actions: bool = False) -> Tensor:
    """Return the expectation, over starts and continuations, of the ascent direction of the PPO loss."""
    rows = [(start, words) for start in start_probabilities() for words in continuations(start)]
    ids = torch.tensor([[*words, *[0] * (HORIZON - len(words))] for _, words in rows])
    states = torch.tensor([[PLACE[w[:t]] if t < len(w) else 0 for t in range(HORIZON)] for _, w in rows])
    steps = torch.arange(HORIZON)
    forced = steps < torch.tensor([len(start) for start, _ in rows])[:, None]
    mask = (steps < torch.tensor([len(words) for _, words in rows])[:, None]) & ~forced
    policy = LOGITS.clone().requires_grad_()

    def said(logits: Tensor) -> Tensor:
        return logits.log_softmax(-1)[states, ids]

    old = said(LOGITS)
    probability = torch.tensor([start_probabilities()[start] for start, _ in rows], dtype=torch.float64)
    probability = probability * keep(old, mask).sum(1).exp()
    assert float(probability.sum()) == pytest.approx(1.0, abs=1e-12)
    counted = mask | forced if forced_are_actions else mask
    scores = torch.tensor([SCORES[words] for _, words in rows], dtype=torch.float64)
    kl = kl_estimate(old, said(REFERENCE), "k1")
    rewards = shaped_rewards(scores, torch.zeros_like(old), kl, counted, KL_COEF)
    values = random(len(PREFIXES), seed=3)[states]  # a baseline, far from right
    advantages = gae(rewards, values, counted, 1.0, 1.0) * probability[:, None]
    loss = policy_loss(said(policy), old, advantages, counted, 0.2, num_tokens=1.0).loss
    (gradient,) = torch.autograd.grad(-loss, policy)
    return gradient


def exact_gradient() -> Tensor:
    policy = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(policy), policy)
    return gradient


def test_the_starts_are_the_mixture_worked_out_by_hand() -> None:
    """(0, 1, 2) has prefixes of one and two tokens, for one of three is left to the policy; the others likewise."""
    assert start_probabilities() == pytest.approx(
        {(): 0.6, (0,): 0.2 / 3 + 0.4 / 3, (0, 1): 0.2 / 3, (2,): 0.2 / 3, (2, 2): 0.2 / 3}, abs=1e-12
    )


def test_the_expected_gradient_is_that_of_the_reset_objective() -> None:
    torch.testing.assert_close(expected_gradient(), exact_gradient(), rtol=0, atol=1e-12)


def test_forced_tokens_as_actions_would_give_another_gradient() -> None:
    """The roll-in of a demonstration in the loss pulls the policy towards it, whatever its score."""
    assert float((expected_gradient(forced_are_actions=True) - exact_gradient()).abs().max()) > 1e-2
