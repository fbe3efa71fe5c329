"""The work of PPO: a step as `ppo/run/cost.py` counts it, with prompts of the data and responses like SFT's."""

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhf.config import PPOConfig, RunConfig
from rlhf.config.rewards import (
    EnsembleRewardSection,
    FunctionRewardSection,
    HttpRewardSection,
    ModelRewardSection,
    reward_names,
)
from rlhf.data.tokenization import prepare_prompts
from rlhf.forecast.load import Load, of_model, of_phases, read_once
from rlhf.forecast.origin import classifier_sizes, language_sizes, origin_of, tuned_sizes
from rlhf.forecast.records import looked_at
from rlhf.forecast.responses import response_lengths
from rlhf.functional.flops import causal_work, sampling_work
from rlhf.models.passes.anatomy import head_width
from rlhf.models.passes.frozen import may_split, num_frozen_blocks
from rlhf.models.pretrained.loading import scalar_head
from rlhf.ppo.run.cost import cost_of_models


def ppo_load(config: PPOConfig, recipe: RunConfig) -> tuple[Load, PreTrainedModel]:
    """Return the work of PPO without `unknown_rewards`, and the policy without weights.

    Raises:
        Unknown: a model or the prompts are not on this machine.
        RlhfError: they cannot be used.
    """
    origin = origin_of(config.model.path, recipe, "ppo")
    lm = tuned_sizes(config.model, origin, AutoModelForCausalLM)
    critic, rewards = _critic(config, recipe), _rewards(config, recipe)
    other = None if config.reference in (None, config.model.path) else config.reference
    reference = language_sizes(origin if other is None else origin_of(other, recipe, "ppo"))
    with torch.device("meta"):
        value_head = nn.Linear(head_width(lm if critic is None else critic), 1)
    cost = cost_of_models(lm, critic, value_head, reference, rewards, num_minibatches=config.minibatches)

    tokenizer, fitting = origin.tokenizer, config.prompts.fitting
    known = looked_at(config.prompts, lambda source: prepare_prompts(source.rows, tokenizer, **fitting))
    prompts = [len(prompt.ids) for prompt in known.items]
    each = [length for length in prompts for _ in range(config.num_samples_per_prompt)]
    responses = response_lengths(config.model.path, each, config.sampling.max_new_tokens, recipe, "ppo")
    flops = cost.flops(
        causal_work([start + new for start, new in zip(each, responses, strict=True)], sum(responses)),
        sampling_work(prompts, each, responses),
        num_rows=len(each),
        passes=config.epochs,
        keeps_states=other is None and may_split(lm, num_frozen_blocks(lm)),
    )
    rows = min(config.sampling.batch_rows, config.rollout_batch_size)
    load = of_phases(flops, rows).times(config.steps * config.rollout_batch_size / len(each))
    load += Load(seconds=known.seconds)
    for read in (reference, *(model for model, _ in rewards)):
        load += read_once(read)
    for trained in (lm, critic):
        if trained is not None:
            updates = config.steps * config.epochs * config.minibatches
            load += of_model(trained, num_updates=updates, every=config.checkpoints.every, num_steps=config.steps)
    return load, lm


def unknown_rewards(config: PPOConfig) -> list[str]:
    """Return the names of the rewards whose time nobody knows beforehand: functions, and servers."""
    names = zip(reward_names(config.rewards), config.rewards, strict=True)
    return [name for name, section in names if isinstance(section, FunctionRewardSection | HttpRewardSection)]


def _critic(config: PPOConfig, recipe: RunConfig) -> PreTrainedModel | None:
    if config.critic_model is None:
        return None
    origin = origin_of(config.critic_model.path, recipe, "ppo")
    critic = tuned_sizes(config.critic_model, origin, AutoModelForSequenceClassification)
    scalar_head(critic).requires_grad_(False)  # as the stage does: the value head replaces it
    return critic


def _rewards(config: PPOConfig, recipe: RunConfig) -> list[tuple[PreTrainedModel, list[nn.Module]]]:
    """Return the reward models; a rule takes next to no time."""
    paths = [section.path for section in config.rewards if isinstance(section, ModelRewardSection)]
    ensembles = [section for section in config.rewards if isinstance(section, EnsembleRewardSection)]
    paths += [member.path for section in ensembles for member in section.models]
    return [classifier_sizes(origin_of(path, recipe, "ppo")) for path in paths]
