"""An update of rlhf.ppo.trainer against PPO written out slowly."""

import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor


class SlowPPO:
    """PPO on whole logits, one row and one token at a time; shares nothing with the package but the models."""

    def __init__(self, tiny: ModuleType, made: Any, rollout: Any) -> None:
        self.config, self.policy = made.trainer.config, made.trainer.policy
        self.prompts = [row[m].tolist() for row, m in zip(rollout.prompt_ids, rollout.prompt_mask, strict=True)]
        self.responses = [row[m].tolist() for row, m in zip(rollout.response_ids, rollout.response_mask, strict=True)]

    def forward(self, lm: Any, row: int) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        prompt, response = self.prompts[row], self.responses[row]
        output = lm(input_ids=torch.tensor([prompt + response]), output_hidden_states=True)
        distribution = (output.logits[0] / self.config.sampling.temperature).log_softmax(-1)
        places = [len(prompt) - 1 + t for t in range(len(response))]
        head = self.policy.value_head.linear
        values = [(head.weight[0] * output.hidden_states[-1][0, place]).sum() + head.bias[0] for place in places]
        logprobs = [distribution[place, token] for place, token in zip(places, response, strict=True)]
        return logprobs, values, [-(distribution[place].exp() * distribution[place]).sum() for place in places]

    @torch.no_grad()
    def experience(self, reference: Any, scores: list[float]) -> None:
        c = self.config
        self.old, self.old_values, self.kl, self.advantages, self.returns = [], [], [], [], []
        for row, score in enumerate(scores):
            logprobs, values, _ = self.forward(self.policy.lm, row)
            ref, _, _ = self.forward(reference, row)
            kl = [math.exp(float(q - p)) - 1 - float(q - p) for p, q in zip(logprobs, ref, strict=True)]  # k3
            rewards = [-c.kl_coef * k for k in kl]
            rewards[-1] += score
            advantages, following, next_value = [], 0.0, 0.0
            for t in reversed(range(len(rewards))):
                following = rewards[t] + c.gamma * next_value - float(values[t]) + c.gamma * c.gae_lambda * following
                next_value = float(values[t])
                advantages.insert(0, following)
            self.old.append([float(p) for p in logprobs])
            self.old_values.append([float(v) for v in values])
            self.kl.append(kl)
            self.returns.append([a + float(v) for a, v in zip(advantages, values, strict=True)])
            self.advantages.append(advantages)
        flat = [a for row in self.advantages for a in row]
        mean = sum(flat) / len(flat)
        std = math.sqrt(sum((a - mean) ** 2 for a in flat) / len(flat))
        self.advantages = [[(a - mean) / std for a in row] for row in self.advantages]

    def loss(self, rows: list[int]) -> tuple[Tensor, float, float]:
        c = self.config
        policy, value, spread, count = torch.zeros(()), torch.zeros(()), torch.zeros(()), 0
        for row in rows:
            logprobs, values, entropies = self.forward(self.policy.lm, row)
            for t, (logprob, v, entropy) in enumerate(zip(logprobs, values, entropies, strict=True)):
                ratio, advantage = (logprob - self.old[row][t]).exp(), self.advantages[row][t]
                clipped = min(max(ratio, 1 - c.clip_range), 1 + c.clip_range)
                policy = policy - min(ratio * advantage, clipped * advantage)
                old, target = self.old_values[row][t], self.returns[row][t]
                near = min(max(v, old - c.value_clip_range), old + c.value_clip_range)
                value = value + 0.5 * max((v - target) ** 2, (near - target) ** 2)
                spread, count = spread + entropy, count + 1
        total = (policy + c.value_coef * value - c.entropy_coef * spread) / count
        return total, policy.item() / count, value.item() / count


def test_an_update_equals_a_slow_implementation(tiny: ModuleType, workshop: Path) -> None:
    made, collected = tiny.stirred(workshop)
    trainer = made.trainer
    batch = tiny.experience(trainer, collected.rollout)
    slow = SlowPPO(tiny, made, collected.rollout)
    slow.experience(trainer.collector.reference.model, collected.rollout.scores.tolist())
    mask = collected.rollout.response_mask
    for name, tensor, rows in [
        ("logprobs", collected.rollout.logprobs, slow.old), ("values", collected.rollout.values, slow.old_values),
        ("kl", batch.kl, slow.kl), ("advantages", batch.advantages, slow.advantages),
        ("returns", batch.returns, slow.returns),
    ]:  # fmt: skip
        expected = torch.tensor([number for row in rows for number in row])
        torch.testing.assert_close(
            tensor[mask], expected, rtol=1e-4, atol=2e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    tiny.stir(trainer, 0.01, seed=2)  # away from ratio 1, so that clipping matters
    minibatch = collected.microbatches.shuffled(trainer.generators.epochs)[0]
    loss, policy, value = slow.loss([row for group in minibatch for row in group.tolist()])
    parameters = {n: p for n, p in trainer.policy.named_parameters() if p.requires_grad}
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    update, gradients = tiny.update(trainer, batch, minibatch)
    assert 0 < update.means["clipped"] < 1 and 0 < update.means["value_clipped"] < 1
    assert update.means["policy_loss"] == pytest.approx(policy, rel=1e-4, abs=1e-6)
    assert update.means["value_loss"] == pytest.approx(value, rel=1e-4)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            gradient, expected[name], **tiny.LOOSE, msg=lambda text, name=name: f"{name}: {text}"
        )
