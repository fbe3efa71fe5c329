"""Tests of rlhf.ppo.trainer."""

import dataclasses
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf.batches import Experience
from rlhf.errors import GuardStop, RewardError

LORA = {"r": 4, "alpha": 8.0}
NO_CLIPPING = {"optimizer__max_grad_norm": 1e9, "value_optimizer": {"max_grad_norm": 1e9}}
LOOSE = {"rtol": 1e-4, "atol": 1e-6}
"""Sums of some hundred float32 products in another order: hundreds of eps (1.2e-7) of the largest terms, near 1e-2."""


def separate(workshop: Path) -> dict[str, Any]:
    return {"critic": "separate", "critic_model": {"path": str(workshop / "reward_model")}}


@pytest.mark.parametrize(
    ("precision", "tuning", "has_critic"),
    [
        ("float32", {}, False),
        ("bfloat16", {}, False),
        ("bfloat16", {"model__trainable_layers": 1}, False),
        ("float32", {"model__trainable_layers": 1}, False),
        ("bfloat16", {"model__trainable_layers": 1}, True),
        ("float32", {"model__lora": LORA}, False),
        ("bfloat16", {"model__lora": LORA}, True),
        ("bfloat16", {}, True),
    ],
)
def test_the_first_minibatch_has_ratio_one_and_the_first_step_no_kl(
    tiny: ModuleType, workshop: Path, precision: str, tuning: dict[str, Any], has_critic: bool
) -> None:
    critic = separate(workshop) if has_critic else {}
    made = tiny.parts(tiny.ppo_config(workshop, model__precision=precision, entropy_coef=0.01, **tuning, **critic))
    result = made.trainer.step(made.prompts)
    first = result.updates[0]
    num_strata = len(result.collected.microbatches.strata)
    assert num_strata > 1, "several microbatches a minibatch"
    assert first.ratio_deviation == 0.0 and first.ratio_max == 1.0
    assert first.means["approx_kl"] == 0.0 and first.means["clipped"] == 0.0
    assert float(result.experience.kl.abs().max()) == 0.0
    assert result.updates[-1].ratio_deviation > 0.0, "later updates move the policy"
    again = made.trainer.step(made.prompts)
    assert again.updates[0].ratio_deviation == 0.0
    assert float(again.experience.kl.abs().max()) > 0.0, "the reference stays behind"


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


def stirred(tiny: ModuleType, workshop: Path, **changes: Any) -> tuple[Any, Any]:
    """A trainer whose policy has left the reference, and a rollout of it."""
    settings = {"sampling__temperature": 0.7, "gamma": 0.9, "gae_lambda": 0.8, "kl_estimator": "k3", "kl_coef": 0.3}
    settings |= {"clip_range": 0.05, "value_clip_range": 0.02, "entropy_coef": 0.05, "value_coef": 0.5, **NO_CLIPPING}
    made = tiny.parts(tiny.ppo_config(workshop, **(settings | changes)))
    tiny.stir(made.trainer, 0.02, seed=1)
    return made, tiny.collected(made)


def test_an_update_equals_a_slow_implementation(tiny: ModuleType, workshop: Path) -> None:
    made, collected = stirred(tiny, workshop)
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
        torch.testing.assert_close(gradient, expected[name], **LOOSE, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("has_critic", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_from_frozen_states_equals_one_without_bit_for_bit(
    tiny: ModuleType, workshop: Path, precision: str, has_critic: bool
) -> None:
    critic = separate(workshop) if has_critic else {}
    made = tiny.parts(tiny.ppo_config(workshop, model__trainable_layers=1, model__precision=precision, **critic))
    trainer, generator = made.trainer, torch.Generator().manual_seed(1)
    start = {  # away from a value head that is 0 and stops every gradient of values
        name: master + 0.02 * torch.randn(master.shape, generator=generator)
        for name, master in tiny.weights(trainer).items()
    }
    trainer.optimizer.weights.load(start)
    collected = tiny.collected(made)
    batch = tiny.experience(trainer, collected.rollout)
    groups = collected.microbatches.all()
    assert sorted(collected.frozen_states) == sorted(int(group[0]) for group in groups)
    seen = []
    for states in (collected.frozen_states, None):
        trainer.optimizer.weights.load(start)
        seen.append(tiny.update(trainer, batch, groups, states))
    (with_states, gradients), (without, expected) = seen
    assert with_states.means == without.means and with_states.ratio_deviation == without.ratio_deviation == 0.0
    assert gradients.keys() == expected.keys() == start.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected[name]) and bool(gradient.any()), name


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_with_frozen_states_equal_steps_of_a_trunk_in_one_piece(
    tiny: ModuleType, workshop: Path, precision: str
) -> None:
    """Rollout, reference, epochs and optimizer: two whole steps, the same numbers to the bit."""
    ends = []
    for is_split in (True, False):
        made = tiny.parts(tiny.ppo_config(workshop, model__trainable_layers=1, model__precision=precision))
        trainer = made.trainer
        assert trainer.policy._split is not None and trainer.collector.reference._split is not None
        if not is_split:
            trainer.policy._split = trainer.collector.reference._split = None
        results = [trainer.step(made.prompts) for _ in range(2)]
        assert all(bool(result.collected.frozen_states) == is_split for result in results)
        assert [result.updates[0].ratio_deviation for result in results] == [0.0, 0.0]
        assert not results[0].experience.kl.any() and bool(results[1].experience.kl.any())
        ends.append((results, tiny.weights(trainer)))
    (found, weights), (expected, others) = ends
    for ours, theirs in zip(found, expected, strict=True):
        assert [update.means for update in ours.updates] == [update.means for update in theirs.updates]
        assert torch.equal(ours.collected.rollout.ref_logprobs, theirs.collected.rollout.ref_logprobs)
        assert torch.equal(ours.experience.advantages, theirs.experience.advantages)
    assert all(torch.equal(weights[name], others[name]) for name in others)


def test_epochs_do_not_pass_the_frozen_blocks_again(tiny: ModuleType, workshop: Path) -> None:
    made, collected = stirred(tiny, workshop, model__trainable_layers=1)
    batch, passes = tiny.experience(made.trainer, collected.rollout), [0, 0]
    for number, block in enumerate(made.trainer.policy.lm.model.layers):
        block.register_forward_pre_hook(lambda *_, number=number: passes.__setitem__(number, passes[number] + 1))
    made.trainer.optimise(batch, collected)
    assert passes == [0, made.trainer.config.epochs * len(collected.microbatches.all())]


@pytest.mark.parametrize("tuning", [{}, {"model__lora": LORA}])
def test_loss_and_gradient_do_not_depend_on_cuts_or_order(
    tiny: ModuleType, workshop: Path, tuning: dict[str, Any]
) -> None:
    made, collected = stirred(tiny, workshop, minibatches=1, **tuning)
    trainer = made.trainer
    batch = tiny.experience(trainer, collected.rollout)
    tiny.stir(trainer, 0.01, seed=2)
    start = tiny.weights(trainer)
    order = torch.tensor([3, 1, 7, 0, 6, 2, 5, 4])
    seen = []
    for rows, minibatch in [
        (batch, [torch.arange(8)]), (batch, list(torch.arange(8).split(1))),
        (batch, list(order.split(3))), (batch.rows(order), [torch.arange(8)]),
    ]:  # fmt: skip
        trainer.optimizer.weights.load(start)
        seen.append(tiny.update(trainer, rows, minibatch))
    first, gradients = seen[0]
    for update, others in seen[1:]:
        # A rounding error can turn over the share of clipped values, where two equal numbers are compared.
        means, expected = ({k: v for k, v in each.means.items() if k != "value_clipped"} for each in (update, first))
        assert means == pytest.approx(expected, rel=1e-4, abs=1e-6)
        for name, gradient in others.items():
            torch.testing.assert_close(
                gradient, gradients[name], **LOOSE, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_padding_content_changes_nothing(tiny: ModuleType, workshop: Path) -> None:
    made, collected = stirred(tiny, workshop, minibatches=1)
    trainer, rollout = made.trainer, collected.rollout
    assert not rollout.response_mask.all() and not rollout.prompt_mask.all()
    start = tiny.weights(trainer)
    dirty = dataclasses.replace(
        rollout,
        prompt_ids=torch.where(rollout.prompt_mask, rollout.prompt_ids, 99),
        response_ids=torch.where(rollout.response_mask, rollout.response_ids, 98),
        **{
            n: torch.where(rollout.response_mask, getattr(rollout, n), 1e3)
            for n in ("logprobs", "ref_logprobs", "values")
        },
    )
    seen = []
    for content in (rollout, dirty):
        trainer.optimizer.weights.load(start)
        seen.append(tiny.update(trainer, tiny.experience(trainer, content), [torch.arange(8)]))
    assert seen[0][0].means == seen[1][0].means and seen[0][0].ratio_max == seen[1][0].ratio_max
    assert all(torch.equal(gradient, seen[1][1][name]) for name, gradient in seen[0][1].items())


def test_forced_tokens_are_read_but_not_learned(tiny: ModuleType, workshop: Path) -> None:
    """A response whose first token is forced trains as one whose prompt is a token longer."""
    made = tiny.parts(tiny.ppo_config(workshop, **NO_CLIPPING))
    trainer = made.trainer
    tiny.stir(trainer, 0.02)
    start = tiny.weights(trainer)
    ids = torch.tensor([[20, 30, 40], [21, 31, 0]])
    mask = torch.tensor([[False, True, True], [False, True, False]])
    given = {"logprobs": torch.full((2, 3), -6.0) * mask, "scores": torch.tensor([1.0, -1.0])}
    forced = tiny.hand_rollout(
        [3, 2], 3, response_ids=ids, response_mask=mask, forced=torch.tensor([[True, False, False]] * 2), **given
    )
    longer = tiny.hand_rollout(
        [2, 1], 2, prompt_ids=torch.tensor([[5, 5, 20], [5, 5, 21]]), prompt_mask=torch.ones(2, 3, dtype=torch.bool),
        response_ids=ids[:, 1:], logprobs=given["logprobs"][:, 1:], scores=given["scores"],
    )  # fmt: skip
    seen = []
    for rollout in (forced, longer):
        trainer.optimizer.weights.load(start)
        seen.append(tiny.update(trainer, tiny.experience(trainer, rollout), [torch.arange(2)]))
    assert seen[0][0].means == pytest.approx(seen[1][0].means, rel=1e-5)
    for name, gradient in seen[0][1].items():
        torch.testing.assert_close(gradient, seen[1][1][name], **LOOSE)


def test_target_kl_skips_the_step_and_ends_the_epochs(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, target_kl=1e-6, epochs=4))
    trainer = made.trainer
    after_first: list[dict[str, Tensor]] = []
    step = trainer.optimizer.step

    def watched() -> dict[str, float]:
        report = step()
        after_first.append(tiny.weights(trainer))
        return report

    trainer.optimizer.step = watched
    result = trainer.step(made.prompts)
    assert [update.stepped for update in result.updates] == [True, False]
    assert result.updates[1].means["approx_kl"] > 1e-6
    now = tiny.weights(trainer)
    assert len(after_first) == 1 and all(torch.equal(now[name], weight) for name, weight in after_first[0].items())
    assert all(master.grad is None for master in trainer.optimizer.weights.masters.values()), "no gradient stays behind"


def test_gradients_are_clipped_group_by_group(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, optimizer__max_grad_norm=1e-3, value_optimizer={"max_grad_norm": 1e-4}))
    collected = tiny.collected(made)
    update, gradients = tiny.update(
        made.trainer, tiny.experience(made.trainer, collected.rollout), collected.microbatches.all()
    )
    for group, limit in (("policy", 1e-3), ("value", 1e-4)):
        parts = [g for name, g in gradients.items() if name.startswith("value_head.") == (group == "value")]
        assert update.optimizer[f"grad_norm/{group}"] > limit
        assert math.sqrt(sum(float(g.square().sum()) for g in parts)) == pytest.approx(limit, rel=1e-3)


def test_each_group_moves_by_its_own_learning_rate(tiny: ModuleType, workshop: Path) -> None:
    value = {"learning_rate": 5e-3, "schedule": "constant", "warmup_fraction": 0.0}
    made = tiny.parts(tiny.ppo_config(workshop, optimizer__learning_rate=1e-4, value_optimizer=value))
    before, collected = tiny.weights(made.trainer), tiny.collected(made)
    tiny.update(made.trainer, tiny.experience(made.trainer, collected.rollout), collected.microbatches.all())
    for name, weight in tiny.weights(made.trainer).items():
        # The first step of Adam moves each weight by at most its learning rate, and the largest by about that.
        rate = 5e-3 if name.startswith("value_head.") else 1e-4
        assert float((weight - before[name]).abs().max()) == pytest.approx(rate, rel=0.05), name


def test_the_entropy_bonus_raises_the_entropy(tiny: ModuleType, workshop: Path) -> None:
    settings = {"reward": "constant", "gae_lambda": 1.0, "epochs": 6, "optimizer__learning_rate": 3e-3}
    made = tiny.parts(tiny.ppo_config(workshop, entropy_coef=10.0, **settings))
    entropies = [update.means["entropy"] for update in made.trainer.step(made.prompts).updates]
    assert entropies[-1] > entropies[0] + 0.05


@pytest.mark.parametrize("changes", [{"model__random_init": True}, {"model__lora": LORA}])
def test_nothing_is_in_training_mode(tiny: ModuleType, workshop: Path, changes: dict[str, Any]) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, **changes, **separate(workshop)))
    made.trainer.step(made.prompts)
    policy = made.trainer.policy
    assert not any(module.training for model in (policy.lm, policy.critic) for module in model.modules())


def test_a_constant_reward_teaches_the_policy_nothing(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reward="constant", gae_lambda=1.0, score__normalise="running"))
    result = made.trainer.step(made.prompts)
    assert float(result.experience.advantages.abs().max()) == 0.0
    assert [update.means["policy_loss"] for update in result.updates] == [0.0] * 4
    assert all(math.isfinite(number) for update in result.updates for number in update.means.values())


def test_a_reward_that_is_not_finite_stops_before_anything_moves(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reward="nan"))
    before = tiny.weights(made.trainer)
    with pytest.raises(RewardError, match="score 0 is nan") as caught:
        made.trainer.step(made.prompts)
    assert caught.value.exit_status == 5
    assert all(torch.equal(before[name], weight) for name, weight in tiny.weights(made.trainer).items())


@pytest.mark.parametrize(
    ("name", "found"),
    [("logprobs", "logprobs"), ("ref_logprobs", "rewards"), ("values", "values"), ("scores", "rewards")],
)
def test_a_rollout_that_is_not_finite_is_refused(tiny: ModuleType, workshop: Path, name: str, found: str) -> None:
    made = tiny.parts(tiny.ppo_config(workshop))
    tensor = torch.zeros(2) if name == "scores" else torch.zeros(2, 2)
    tensor.view(-1)[0] = torch.nan
    batch = tiny.experience(made.trainer, tiny.hand_rollout([2, 1], 2, **{name: tensor}))
    with pytest.raises(GuardStop, match=f"not finite: .*{found}") as caught:
        made.trainer.guard(batch)
    assert caught.value.exit_status == 6


def test_a_loss_that_is_not_finite_moves_nothing(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop))
    trainer, collected = made.trainer, tiny.collected(made)
    batch = tiny.experience(trainer, collected.rollout)
    bad = dataclasses.replace(batch, advantages=torch.where(collected.rollout.response_mask, torch.nan, 0.0))
    before = tiny.weights(trainer)
    with pytest.raises(GuardStop, match="not finite in an update: policy_loss"):
        trainer.update(bad, collected.microbatches.all())
    assert all(torch.equal(before[name], weight) for name, weight in tiny.weights(trainer).items())


def test_a_policy_too_far_from_the_reference_stops_the_run(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, kl_control__max_kl=1.0))
    far = {"logprobs": torch.full((2, 2), -1.0), "ref_logprobs": torch.full((2, 2), -1.7)}
    with pytest.raises(
        GuardStop, match=r"KL to the reference is 1\.4 nats per sequence, above kl_control\.max_kl \(1\.0\)"
    ):
        made.trainer.guard(tiny.experience(made.trainer, tiny.hand_rollout([2, 2], 2, **far)))
    made.trainer.guard(tiny.experience(made.trainer, tiny.hand_rollout([1, 1], 2, **far)))  # 0.7


def test_the_adaptive_controller_is_fed_the_sum_over_a_sequence(tiny: ModuleType, workshop: Path) -> None:
    control = {"controller": "adaptive", "target": 1.0, "horizon": 80}
    made = tiny.parts(tiny.ppo_config(workshop, kl_control=control, kl_coef=0.1))
    far = {"logprobs": torch.full((2, 3), -1.0), "ref_logprobs": torch.full((2, 3), -1.55)}
    batch: Experience = tiny.experience(made.trainer, tiny.hand_rollout([3, 1], 3, **far))
    assert made.trainer.sequence_kl(batch) == pytest.approx(1.1)  # (3 + 1) * 0.55 / 2 sequences
    made.trainer.kl_control.update(made.trainer.sequence_kl(batch), 8)
    assert made.trainer.kl_control.coef == pytest.approx(0.1 * 1.01)  # 1 + 0.1 * 8 / 80
    result = tiny.parts(tiny.ppo_config(workshop, kl_control=control, kl_coef=0.1)).trainer
    step = result.step(made.prompts)
    assert step.kl_coef == 0.1
    assert result.kl_control.coef == pytest.approx(0.1 * 0.98)  # KL 0 on the first step: error -1, clipped to -0.2


def learning_curve(tiny: ModuleType, workshop: Path, num_steps: int, **changes: Any) -> tuple[list[float], float]:
    """Mean scores of the steps, and the KL to the reference that the last one found."""
    config = tiny.ppo_config(workshop, microbatch_tokens=512, sampling={"max_new_tokens": 5}, **changes)
    made = tiny.parts(config)
    prompts = made.prompts * (config.rollout_batch_size // 8)
    results = [made.trainer.step(prompts) for _ in range(num_steps)]
    scores = [float(result.experience.rollout.scores.mean()) for result in results]
    return scores, made.trainer.sequence_kl(results[-1].experience)


def test_ppo_learns(tiny: ModuleType, workshop: Path) -> None:
    scores, _ = learning_curve(tiny, workshop, 10, kl_coef=0.0, rollout_batch_size=16, optimizer__learning_rate=1e-2)
    assert sum(scores[-2:]) / 2 > sum(scores[:2]) / 2 + 0.04


def test_a_large_kl_coefficient_holds_the_policy_near_the_reference(tiny: ModuleType, workshop: Path) -> None:
    settings = {"rollout_batch_size": 64, "optimizer__learning_rate": 3e-3}
    (_, free), (_, held) = (learning_curve(tiny, workshop, 10, kl_coef=coef, **settings) for coef in (0.0, 1.0))
    assert free > 2.0
    assert held < 0.5 * free
