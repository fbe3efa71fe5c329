"""Builds the rewards that the sections of a config describe."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from rlhf.config.rewards import (
    ClassifierSection,
    EnsembleRewardSection,
    FunctionRewardSection,
    HttpRewardSection,
    ModelRewardSection,
    RewardSection,
    RuleSection,
    reward_names,
)
from rlhf.fetch import resolve
from rlhf.rewards.component import Component, Gate, Options
from rlhf.rewards.kinds.classifier import ClassifierReward, has_linear_score, reads_tokens
from rlhf.rewards.kinds.ensemble import EnsembleReward
from rlhf.rewards.kinds.function import FunctionReward
from rlhf.rewards.kinds.http import HttpReward
from rlhf.rewards.kinds.model import Loaded, ModelReward
from rlhf.rewards.protocol import Reward
from rlhf.rewards.token_scores import ends_in

Given = Callable[..., object] | Loaded
"""A reward that is already in memory."""


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """What every reward is built with."""

    tokenizer: PreTrainedTokenizerBase
    """The policy's."""
    dtype: torch.dtype
    device: torch.device
    longest: int | None
    """The most tokens that an episode may have."""

    @property
    def of_model(self) -> dict[str, Any]:
        """What a reward model is built with."""
        return {
            "policy_tokenizer": self.tokenizer,
            "dtype": self.dtype,
            "device": self.device,
            "longest": self.longest,
        }


def components(
    sections: Sequence[RewardSection],
    tokenizer: PreTrainedTokenizerBase,
    *,
    dtype: torch.dtype,
    device: torch.device,
    given: Mapping[int, Given] = MappingProxyType({}),
    longest: int | None = None,
) -> list[Component]:
    """Build the rewards of a run.

    Args:
        sections: the `rewards` of the config.
        tokenizer: the policy's.
        dtype: compute dtype of reward models.
        device: where they run.
        given: functions and classifiers already in memory, by the index of their section.
        longest: the most tokens that an episode may have, prompt and response; None where it is not known.

    Raises:
        ConfigError: one of them cannot be built.
    """
    surroundings = _Surroundings(tokenizer, dtype, device, longest)
    return [
        Component(_reward(section, surroundings, given.get(place)), section.weight, name, _options(section))
        for place, (section, name) in enumerate(zip(sections, reward_names(sections), strict=True))
    ]


def reward_inputs(sections: Sequence[RewardSection]) -> list[str]:
    """Return the files and directories that the scores depend on."""
    inputs: list[str] = []
    for section in sections:
        if isinstance(section, FunctionRewardSection):
            inputs.append(section.path.split(":")[0])
        elif isinstance(section, ModelRewardSection):
            inputs.append(section.path)
        elif isinstance(section, EnsembleRewardSection):
            inputs += [model.path for model in section.models]
    return inputs


def _reward(section: RewardSection, surroundings: _Surroundings, given: Given | None) -> Reward:
    if isinstance(section, FunctionRewardSection):
        function = section.path if given is None or isinstance(given, Loaded) else given
        return FunctionReward(function, ends=ends_in(surroundings.tokenizer))
    if isinstance(section, ModelRewardSection):
        return _loaded(section, surroundings, given) if isinstance(given, Loaded) else _model(section, surroundings)
    if isinstance(section, EnsembleRewardSection):
        members = [_model(model, surroundings) for model in section.models]
        return EnsembleReward(members, combine=section.combine, k=section.k)
    if isinstance(section, HttpRewardSection):
        return _server(section, surroundings)
    return _rule(section)


def _rule(section: RuleSection) -> Reward:
    module, _, name = section.made_by.partition(":")
    reward: Reward = getattr(import_module(module), name)(**section.own_keys)
    return reward


def _model(section: ClassifierSection, surroundings: _Surroundings) -> ModelReward | ClassifierReward:
    """Return the reward of a classifier: one that reads the policy's tokens, or one that reads text."""
    path, device = resolve(section.path), surroundings.device
    if section.label is None and section.activation == "none" and reads_tokens(path):
        return ModelReward(path, **surroundings.of_model)
    return ClassifierReward(path, label=section.label, activation=section.activation, device=device)


def _loaded(section: ClassifierSection, surroundings: _Surroundings, given: Loaded) -> Reward:
    path, device = section.path, surroundings.device
    plain = section.label is None and section.activation == "none" and given.model.config.num_labels == 1
    if plain and has_linear_score(given.model):
        return ModelReward(path, **surroundings.of_model, loaded=given)
    return ClassifierReward(path, label=section.label, activation=section.activation, device=device, loaded=given)


def _server(section: HttpRewardSection, surroundings: _Surroundings) -> Reward:
    assert section.deadline is not None
    return HttpReward(
        section.url,
        timeout=section.timeout,
        deadline=section.deadline,
        retries=section.retries,
        max_response_bytes=section.max_response_bytes,
        label_column=section.label_column,
        token_env=section.token_env,
        tokenizer=surroundings.tokenizer,
    )


def _options(section: RewardSection) -> Options:
    gate = None if section.gate is None else Gate(section.gate.reward, section.gate.above)
    return Options(
        clip=section.clip,
        normalise=section.normalise,
        gate=gate,
        cache=section.cache,
        on_error=section.on_error,
        on_nan=section.on_nan,
        # The HTTP client enforces the deadline itself: its error names the attempts that were made.
        deadline=None if isinstance(section, HttpRewardSection) else section.deadline,
        early=isinstance(section, FunctionRewardSection | HttpRewardSection) and section.early,
    )
