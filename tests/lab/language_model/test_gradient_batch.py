"""Tests of rlhf.lab.language_model.gradient_batch."""

from dataclasses import replace

from rlhf.lab.language_model.gradient_batch import QUICK, SAMPLES, warmed_up
from rlhf.lab.section import Settings


def test_the_batch_has_whole_groups_of_different_prompts_in_each_minibatch(collected):
    texts = [episode.prompt for episode in collected.episodes]
    groups = [set(texts[start : start + SAMPLES]) for start in range(0, len(texts), SAMPLES)]
    assert all(len(group) == 1 for group in groups)
    assert len(set.union(*groups)) == len(groups) == QUICK.num_minibatches * QUICK.prompts_each
    assert QUICK.episodes_each % SAMPLES == 0


def test_the_warm_up_moves_policy_and_critic(policy, tmp_path):
    sizes = replace(QUICK, warmup_steps=2)
    trainer = warmed_up(Settings(model=policy, quick=True), sizes, tmp_path).trainer
    assert trainer.optimizer.num_done == 2 * trainer.config.epochs * trainer.config.minibatches
    assert bool(trainer.policy.value_head.linear.weight.any())
