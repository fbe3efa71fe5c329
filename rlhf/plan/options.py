"""The options of `rlhf plan`; importable without torch."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rlhf.config import PPOConfig, RunConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import ConfigError
from rlhf.plan.hardware import DEVICES, Hardware, hardware_of
from rlhf.plan.shapes import SHAPES


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What is planned, and for which machine."""

    config: PPOConfig
    recipe: RunConfig
    """The stages before PPO, from which its models may come."""
    hardware: Hardware
    shape: str | None
    """Name of the shape that all models are to have; None takes the models of the configuration."""
    prompt_tokens: int | None
    """Of every prompt; None takes the longest that the configuration allows."""
    response_tokens: int | None
    """Of every response; None takes the longest."""
    price: float | None
    """Of a device and hour."""

    @classmethod
    def of(cls, options: argparse.Namespace, overrides: list[str]) -> Self:
        """Return the options of a parsed command line.

        Raises:
            ConfigError: an option or the configuration is not valid.
        """
        config, recipe = _configs(options.config, overrides)
        for name in ("prompt_tokens", "response_tokens", "price"):
            given = getattr(options, name)
            if given is not None and given <= 0:
                raise ConfigError(f"--{name.replace('_', '-')}: expected a number above 0, found {given}")
        return cls(
            config=config,
            recipe=recipe,
            hardware=hardware_of(options.hardware),
            shape=options.shape,
            prompt_tokens=options.prompt_tokens,
            response_tokens=options.response_tokens,
            price=options.price,
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rlhf plan`."""
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the YAML file of PPO, or of a recipe with PPO")
    names = ", ".join(DEVICES)
    add("--hardware", required=True, metavar="NxDEVICE", help=f"such as 8xH100-80GB; a DEVICE is one of {names}")
    add("--shape", choices=SHAPES, metavar="NAME", help=f"plan for models of this shape instead: {', '.join(SHAPES)}")
    add("--prompt-tokens", type=int, metavar="N", help="tokens of a prompt (default: prompts.max_length)")
    add("--response-tokens", type=int, metavar="N", help="tokens of a response (default: sampling.max_new_tokens)")
    add("--price", type=float, metavar="P", help="of a device and hour, in any currency: adds a column of cost")


def _configs(path: Path, overrides: list[str]) -> tuple[PPOConfig, RunConfig]:
    if path.stem != "run":
        config = load_config(PPOConfig, path, overrides)
        return config, RunConfig(output_dir=config.output_dir)
    recipe = load_config(RunConfig, path, overrides)
    if recipe.ppo is None:
        raise ConfigError(f"config error: {path}: expected a recipe with a section ppo, found none")
    return recipe.ppo, recipe
