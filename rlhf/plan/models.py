"""The models of a PPO run, all of one well-known shape, without weights and files."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel

from rlhf.config import PPOConfig
from rlhf.config.rewards import model_paths
from rlhf.config.shared import TuningSection
from rlhf.forecast.models import PPOModels
from rlhf.models.pretrained.loading import scalar_head
from rlhf.models.pretrained.quantization import quantize
from rlhf.models.pretrained.setup import make_trainable
from rlhf.plan.shapes import SHAPES


def models_of_shape(config: PPOConfig, shape: str) -> PPOModels:
    """Return the models that a configuration would have if all had one shape, a key of SHAPES."""
    classifiers = [_made(AutoModelForSequenceClassification, shape) for _ in model_paths(config.rewards)]
    critic = None
    if config.critic_model is not None:
        critic = _tuned(_made(AutoModelForSequenceClassification, shape), config.critic_model)
        scalar_head(critic).requires_grad_(False)
    return PPOModels(
        lm=_tuned(_made(AutoModelForCausalLM, shape), config.model),
        critic=critic,
        reference=_made(AutoModelForCausalLM, shape),
        has_own_reference=config.reference not in (None, config.model.path),
        rewards=[(model, [scalar_head(model)]) for model in classifiers],
    )


def _made(kind: Any, shape: str) -> PreTrainedModel:
    config = LlamaConfig(**SHAPES[shape].keys())
    if kind is AutoModelForSequenceClassification:
        config.num_labels = 1
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config, trust_remote_code=False)
    return model.requires_grad_(False)


def _tuned(model: PreTrainedModel, tuning: TuningSection) -> PreTrainedModel:
    """Set `requires_grad` as a stage would."""
    model.requires_grad_(True)
    if tuning.quantize is not None:
        quantize(model, tuning.quantize)
    with torch.device("meta"):
        make_trainable(model, "shape", lora=tuning.new_lora, trainable_layers=tuning.trainable_layers)
    return model
