"""Steps from the states of frozen blocks are steps without them, bit for bit."""

from pathlib import Path
from types import ModuleType

import pytest
import torch


@pytest.mark.sweep
@pytest.mark.parametrize("has_critic", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_update_from_frozen_states_equals_one_without_bit_for_bit(
    tiny: ModuleType, workshop: Path, precision: str, has_critic: bool
) -> None:
    critic = tiny.separate(workshop) if has_critic else {}
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


@pytest.mark.sweep
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
    made, collected = tiny.stirred(workshop, model__trainable_layers=1)
    batch, passes = tiny.experience(made.trainer, collected.rollout), [0, 0]
    for number, block in enumerate(made.trainer.policy.lm.model.layers):
        block.register_forward_pre_hook(lambda *_, number=number: passes.__setitem__(number, passes[number] + 1))
    made.trainer.optimise(batch, collected)
    assert passes == [0, made.trainer.config.epochs * len(collected.microbatches.all())]
