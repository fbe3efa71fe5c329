"""The work of PPO: a step as `ppo/run/cost.py` counts it, with prompts of the data and responses like SFT's."""

import torch
from torch import nn
from transformers import PreTrainedModel

from rlhf.config import PPOConfig, RunConfig
from rlhf.config.rewards import FunctionRewardSection, HttpRewardSection, reward_names
from rlhf.data.tokenization import prepare_prompts
from rlhf.forecast.load import Load, of_model, of_phases, read_once
from rlhf.forecast.models import PPOModels, ppo_models
from rlhf.forecast.origin import origin_of
from rlhf.forecast.records import looked_at
from rlhf.forecast.responses import response_lengths
from rlhf.functional.flops import causal_work, sampling_work
from rlhf.models.passes.anatomy import head_width
from rlhf.models.passes.frozen import may_split, num_frozen_blocks
from rlhf.ppo.run.cost import StepCost, cost_of_models


def ppo_load(config: PPOConfig, recipe: RunConfig) -> tuple[Load, PreTrainedModel]:
    """Return the work of PPO without `unknown_rewards`, and the policy without weights.

    Raises:
        Unknown: a model or the prompts are not on this machine.
        RlhfError: they cannot be used.
    """
    models, tokenizer = ppo_models(config, recipe), origin_of(config.model.path, recipe, "ppo").tokenizer
    known = looked_at(config.prompts, lambda source: prepare_prompts(source.rows, tokenizer, **config.prompts.fitting))
    prompts = [len(prompt.ids) for prompt in known.items]
    each = [length for length in prompts for _ in range(config.num_samples_per_prompt)]
    responses = response_lengths(config.model.path, each, config.sampling, recipe, "ppo")
    flops = cost_of(models, config.minibatches).flops(
        causal_work([start + new for start, new in zip(each, responses, strict=True)], sum(responses)),
        sampling_work(prompts, each, responses),
        num_rows=len(each),
        passes=config.epochs,
        keeps_states=keeps_states(models),
    )
    rows = min(config.sampling.batch_rows, config.rollout_batch_size)
    load = of_phases(flops, rows).times(config.steps * config.rollout_batch_size / len(each))
    load += Load(seconds=known.seconds)
    for read in (models.reference, *(model for model, _ in models.rewards)):
        load += read_once(read)
    for trained in (models.lm, models.critic):
        if trained is not None:
            updates = config.steps * config.epochs * config.minibatches
            load += of_model(trained, num_updates=updates, every=config.checkpoints.every, num_steps=config.steps)
    return load, models.lm


def unknown_rewards(config: PPOConfig) -> list[str]:
    """Return the names of the rewards whose time nobody knows beforehand: functions, and servers."""
    names = zip(reward_names(config.rewards), config.rewards, strict=True)
    return [name for name, section in names if isinstance(section, FunctionRewardSection | HttpRewardSection)]


def cost_of(models: PPOModels, num_minibatches: int) -> StepCost:
    """Return what a step costs with these models."""
    with torch.device("meta"):
        value_head = nn.Linear(head_width(models.lm if models.critic is None else models.critic), 1)
    return cost_of_models(
        models.lm, models.critic, value_head, models.reference, models.rewards, num_minibatches=num_minibatches
    )


def keeps_states(models: PPOModels) -> bool:
    """Return whether the frozen blocks run once a step."""
    return not models.has_own_reference and may_split(models.lm, num_frozen_blocks(models.lm))
