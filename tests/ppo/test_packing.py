"""A PPO step on packed rows: the same microbatches in every pass, and the numbers of padded rows."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from rlhf.models.passes.anatomy import blocks

TUNINGS = {"all": {}, "last": {"model__trainable_layers": 1}, "adapter": {"model__lora": {"r": 4, "alpha": 8}}}


@pytest.mark.sweep
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("tuning", TUNINGS)
def test_every_pass_is_packed_the_first_ratio_is_1_and_the_first_kl_0(
    tiny: ModuleType, workshop: Path, tuning: str, precision: str
) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, model__precision=precision, **TUNINGS[tuning]))
    trainer, shapes = made.trainer, []
    for model in {trainer.policy.lm, trainer.collector.reference.model}:
        blocks(model)[-1].mlp.register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0].shape[:2])))  # type: ignore[union-attr,operator]
    sampled = trainer.rollout(made.prompts)
    shapes.clear()  # the sampler reads rows
    result = trainer.learn(trainer.make_experience(sampled, trainer.score(sampled)))
    rollout = result.collected.rollout
    lengths = rollout.prompt_mask.sum(1) + rollout.response_mask.sum(1)
    sizes = {
        int(lengths[rows].sum()) for rows in result.collected.microbatches.all() if len(set(lengths[rows].tolist())) > 1
    }
    assert sizes and sizes <= {num for rows, num in shapes if rows == 1}
    assert result.updates[0].ratio_deviation == 0.0
    assert not result.experience.kl.any()


def test_logprobs_and_values_are_those_of_padded_rows(tiny: ModuleType, workshop: Path) -> None:
    found: list[tuple[Tensor, ...]] = []
    for choice in ("auto", "off"):
        made = tiny.parts(tiny.ppo_config(workshop, packing=choice))
        torch.nn.init.normal_(made.trainer.policy.value_head.linear.weight, generator=torch.Generator().manual_seed(0))
        rollout = tiny.collected(made).rollout
        found.append((rollout.logprobs, rollout.values, rollout.ref_logprobs, rollout.response_ids))
    for packed, padded in zip(*found, strict=True):
        assert bool(packed.any())
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)
