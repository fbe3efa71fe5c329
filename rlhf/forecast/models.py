"""The models of a PPO run without weights: as the configuration names them, and as the stages before make them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from rlhf.config import PPOConfig, RunConfig
from rlhf.config.rewards import model_paths
from rlhf.forecast.origin import classifier_sizes, language_sizes, origin_of, tuned_sizes
from rlhf.models.pretrained.loading import scalar_head


@dataclass(frozen=True, slots=True, kw_only=True)
class PPOModels:
    """What takes part in a step. Parameters are on the meta device; `requires_grad` says what is trained."""

    lm: PreTrainedModel
    """The policy."""
    critic: PreTrainedModel | None
    """The separate one; None where the value head sits on the policy."""
    reference: PreTrainedModel
    has_own_reference: bool
    """Whether the reference starts from another model than the policy, and shares no weights with it."""
    rewards: Sequence[tuple[PreTrainedModel, list[nn.Module]]]
    """Reward models with their linear heads; a rule takes next to no time and memory."""


def ppo_models(config: PPOConfig, recipe: RunConfig) -> PPOModels:
    """Return the models of PPO.

    Raises:
        Unknown: a model is not on this machine.
        RlhfError: one cannot be used.
    """
    origin = origin_of(config.model.path, recipe, "ppo")
    other = None if config.reference in (None, config.model.path) else config.reference
    return PPOModels(
        lm=tuned_sizes(config.model, origin, AutoModelForCausalLM),
        critic=_critic(config, recipe),
        reference=language_sizes(origin if other is None else origin_of(other, recipe, "ppo")),
        has_own_reference=other is not None,
        rewards=[classifier_sizes(origin_of(path, recipe, "ppo")) for path in model_paths(config.rewards)],
    )


def _critic(config: PPOConfig, recipe: RunConfig) -> PreTrainedModel | None:
    if config.critic_model is None:
        return None
    origin = origin_of(config.critic_model.path, recipe, "ppo")
    critic = tuned_sizes(config.critic_model, origin, AutoModelForSequenceClassification)
    scalar_head(critic).requires_grad_(False)  # as the stage does: the value head replaces it
    return critic
