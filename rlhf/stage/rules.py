"""What a stage's config asks of the course of a run, and what of a config is refused here or for weights in shards."""

import torch

from rlhf.config.shared import OptimizerSection, TuningSection
from rlhf.config.stage import StageSettings
from rlhf.errors import ConfigError
from rlhf.models.pretrained.quantization import check_quantizes
from rlhf.training.ending.best import BestRule
from rlhf.training.ending.ceiling import CeilingRule
from rlhf.training.ending.course import Rules
from rlhf.training.ending.rollback import RollbackRule

SWITCHES = ("deterministic", "release_gradients", "reference_on_host")
"""Keys of a stage, or of PPO alone, that save memory or choose operations in ways of whole weights."""


def rules_of(config: StageSettings) -> Rules:
    """Return what ends the run early, takes it back, or chooses its result, as the loop takes it."""
    best, stopping, rollback = config.best, config.early_stopping, config.guards.rollback
    if best is not None:
        waits = {} if stopping is None else stopping.model_dump()
        chosen = BestRule(
            metric=best.metric, greater_is_better=best.is_greater_better, load_at_end=best.load_at_end, **waits
        )
    return Rules(
        best=None if best is None else chosen,
        ceiling=None if config.ceiling is None else CeilingRule(**config.ceiling),
        rollback=None if rollback is None else RollbackRule(**rollback.model_dump()),
    )


def models_of(config: StageSettings) -> dict[str, TuningSection | None]:
    """Return the sections of the models that a stage trains, by their keys."""
    return {"model": config.model, "critic_model": getattr(config, "critic_model", None)}


def _optimizers_of(config: StageSettings) -> dict[str, OptimizerSection]:
    found = {name: getattr(config, name, None) for name in ("optimizer", "value_optimizer")}
    return {name: section for name, section in found.items() if section is not None}


def is_quantized(config: StageSettings) -> bool:
    """Whether the base of a model that a stage trains is held in fewer bits."""
    return any(section is not None and section.quantize is not None for section in models_of(config).values())


def check_quantized(config: StageSettings, device: torch.device) -> None:
    """Refuse quantized weights where nothing here can compute with them.

    Raises:
        ConfigError: says why.
    """
    if is_quantized(config):
        check_quantizes(device)


def check_sharded(config: StageSettings) -> None:
    """Refuse what has not been seen to work on weights in shards.

    Raises:
        ConfigError: names the first key that asks for it.
    """
    if config.compile == "on":
        raise ConfigError("compile: on, but blocks in shards (FSDP) are not compiled - set compile: off")
    models = models_of(config)
    asked = {
        "guards.rollback": config.guards.rollback is not None,
        "best.load_at_end": config.best is not None and config.best.load_at_end,
        **{
            f"{name}.gradient_checkpointing": model is not None and model.gradient_checkpointing
            for name, model in models.items()
        },
        **{f"{name}.quantize": model is not None and model.quantize is not None for name, model in models.items()},
        **{name: bool(getattr(config, name, False)) for name in SWITCHES},
        **{f"{name}.moments": section.moments != "float32" for name, section in _optimizers_of(config).items()},
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"{name}: is not supported for weights in shards (FSDP) - leave it out, or start without FSDP"
            )
