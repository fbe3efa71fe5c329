"""The ways of running one PPO configuration that are compared."""

from dataclasses import dataclass

from rlhf.config import PPOConfig
from rlhf.config.shared import LoraSection
from rlhf.stage.rules import is_quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One way."""

    tuning: str
    """How it differs from the configuration in what is trained; empty where it does not."""
    is_sharded: bool
    """Weights, gradients and optimizer state are divided over the devices (FSDP2); otherwise each has all."""
    has_engine: bool
    """An inference engine on the same devices samples, with weights of its own."""

    @property
    def name(self) -> str:
        """In words."""
        ways = ["FSDP2" if self.is_sharded else "replicated", self.tuning, "engine" if self.has_engine else ""]
        return "+".join(way for way in ways if way)


def tunings_of(config: PPOConfig) -> dict[str, PPOConfig]:
    """Return the configuration as it is, and with LoRA where it has none, by `Setup.tuning`."""
    if config.model.lora is not None:
        return {"": config}
    adapted = config.model.model_copy(update={"lora": LoraSection(), "trainable_layers": None})
    return {"": config, "LoRA": config.model_copy(update={"model": adapted})}


def setups_of(tuning: str, config: PPOConfig, num_devices: int) -> list[Setup]:
    """Return the ways of one tuning: replicated and, over several devices, sharded; without and with an engine.

    Quantized weights are never in shards.
    """
    sharding = [False, True] if num_devices > 1 and not is_quantized(config) else [False]
    return [
        Setup(tuning=tuning, is_sharded=sharded, has_engine=engine) for sharded in sharding for engine in (False, True)
    ]
