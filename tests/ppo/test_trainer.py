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

LORA = {"r": 4, "alpha": 8.0}


@pytest.mark.sweep(3)
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
    critic = tiny.separate(workshop) if has_critic else {}
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


@pytest.mark.parametrize("tuning", [{}, {"model__lora": LORA}])
def test_loss_and_gradient_do_not_depend_on_cuts_or_order(
    tiny: ModuleType, workshop: Path, tuning: dict[str, Any]
) -> None:
    made, collected = tiny.stirred(workshop, minibatches=1, **tuning)
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
                gradient, gradients[name], **tiny.LOOSE, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_padding_content_changes_nothing(tiny: ModuleType, workshop: Path) -> None:
    made, collected = tiny.stirred(workshop, minibatches=1)
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
    made = tiny.parts(tiny.ppo_config(workshop, **tiny.NO_CLIPPING))
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
        torch.testing.assert_close(gradient, seen[1][1][name], **tiny.LOOSE)


def test_target_kl_skips_the_step_and_ends_the_epochs(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, target_kl=1e-6, epochs=4))
    trainer = made.trainer
    after_first: list[dict[str, Tensor]] = []
    step = trainer.optimizer.step

    def watched(*given: Any) -> dict[str, float]:
        report = step(*given)
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
    made = tiny.parts(tiny.ppo_config(workshop, **changes, **tiny.separate(workshop)))
    made.trainer.step(made.prompts)
    policy = made.trainer.policy
    assert not any(module.training for model in (policy.lm, policy.critic) for module in model.modules())


def test_a_constant_reward_teaches_the_policy_nothing(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reward="constant", gae_lambda=1.0, score__normalise="running"))
    result = made.trainer.step(made.prompts)
    assert float(result.experience.advantages.abs().max()) == 0.0
    assert [update.means["policy_loss"] for update in result.updates] == [0.0] * 4
    assert all(math.isfinite(number) for update in result.updates for number in update.means.values())


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


@pytest.mark.sweep
@pytest.mark.parametrize("switch", ["model__gradient_checkpointing", "release_gradients", "reference_on_host"])
def test_what_saves_memory_changes_no_bit_of_two_steps(tiny: ModuleType, workshop: Path, switch: str) -> None:
    ended = []
    for value in (False, True):
        settings = {switch: value, "model__precision": "bfloat16", "model__trainable_layers": 1, "epochs": 1}
        made = tiny.parts(tiny.ppo_config(workshop, **settings))
        for _ in range(2):
            result = made.trainer.step(made.prompts)
            assert result.updates[0].ratio_deviation == 0.0
        ended.append({**tiny.weights(made.trainer), "ref_logprobs": result.collected.rollout.ref_logprobs})
    tiny.assert_equal(*ended)


def test_gradients_are_released_while_responses_are_drawn(tiny: ModuleType, workshop: Path) -> None:
    held = []
    for release in (False, True):
        made = tiny.parts(tiny.ppo_config(workshop, release_gradients=release, model__precision="bfloat16", epochs=1))
        made.trainer.step(made.prompts)
        weights = made.trainer.optimizer.weights
        made.trainer.rollout(made.prompts)
        held.append(sum(adder.memory is not None for adder in weights._adders))
    assert held == [len(weights._adders), 0] and held[0] > 10
