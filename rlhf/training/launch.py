"""What a launcher asks for by environment variables: shards, a compute type. The rest is refused, never ignored."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rlhf.errors import ConfigError

USE_FSDP = "ACCELERATE_USE_FSDP"
MIXED_PRECISION = "ACCELERATE_MIXED_PRECISION"
OTHERS = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}
"""Variables that `accelerate launch` sets to true (accelerate/utils/launch.py), and what they stand for."""
SETTINGS = {
    MIXED_PRECISION: ("mixed_precision", "model.precision: bfloat16 or float32"),
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_backend", "compile: on"),
}
"""Variables that `accelerate launch` sets to `no` unless asked: its own name for each, and ours."""
NOTHING = ("", "no", "none", "false", "0")


class Key(NamedTuple):
    """A key of the `fsdp_config` of a launch file."""

    variable: str
    """How accelerate hands it on."""
    accepted: tuple[str, ...]
    """In lower case; "" where it may be left out."""
    fix: str


KEYS = {
    "fsdp_version": Key("FSDP_VERSION", ("2",), "set it to 2"),
    "fsdp_reshard_after_forward": Key("FSDP_RESHARD_AFTER_FORWARD", ("true", "false"), "set it to true or false"),
    "fsdp_offload_params": Key("FSDP_OFFLOAD_PARAMS", ("true", "false", ""), "set it to true or false"),
    "fsdp_auto_wrap_policy": Key(
        "FSDP_AUTO_WRAP_POLICY",
        ("transformer_based_wrap", ""),
        "set it to TRANSFORMER_BASED_WRAP: each transformer block is gathered by itself",
    ),
    "fsdp_cpu_ram_efficient_loading": Key(
        "FSDP_CPU_RAM_EFFICIENT_LOADING",
        ("false", ""),
        "set it to false (accelerate takes true where it is left out): every process reads the whole model",
    ),
    "fsdp_state_dict_type": Key(
        "FSDP_STATE_DICT_TYPE", ("full_state_dict", ""), "leave it out: checkpoints hold whole tensors"
    ),
    "fsdp_activation_checkpointing": Key("FSDP_ACTIVATION_CHECKPOINTING", ("false", ""), "set it to false"),
    "fsdp_activation_checkpointing_offload": Key(
        "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD", ("false", ""), "set it to false"
    ),
    "fsdp_forward_prefetch": Key("FSDP_FORWARD_PREFETCH", ("false", ""), "set it to false"),
    "fsdp_ignored_modules": Key("FSDP_IGNORED_MODULES", ("none", ""), "leave it out"),
}
"""What is read of FSDP's settings; those of FSDP1 alone mean nothing to FSDP2."""


@dataclass(frozen=True, slots=True)
class Fsdp2Settings:
    """What an FSDP2 launch file asks for."""

    reshard_after_forward: bool
    """Whether the weights of a block are dropped after its forward pass and gathered again for the backward pass."""
    offload: bool
    """Whether shards, gradients and the optimizer's state wait on the host."""
    blocks: tuple[str, ...]
    """The classes of blocks that the file names, if any."""


def check_launch(environment: Mapping[str, str]) -> None:
    """Refuse what the launcher asks for and nothing here does.

    Raises:
        ConfigError: says what, and what to set instead.
    """
    for variable, name in OTHERS.items():
        if _asks(environment, variable):
            raise ConfigError(
                f"accelerate launch: {name} is not supported, and every process would hold the whole model - use FSDP2 "
                "(configs/accelerate/fsdp2.yaml)"
            )
    if _asks(environment, "ACCELERATE_DYNAMO_BACKEND"):
        _refuse(environment, "ACCELERATE_DYNAMO_BACKEND")


def check_plain_launch(environment: Mapping[str, str], what: str) -> None:
    """Refuse a launch file's FSDP and mixed_precision for `what`, which does nothing with them.

    Raises:
        ConfigError: says what, and what to do instead.
    """
    check_unsharded_launch(environment, what)
    if _asks(environment, MIXED_PRECISION):
        _refuse(environment, MIXED_PRECISION)


def check_unsharded_launch(environment: Mapping[str, str], what: str) -> None:
    """Refuse a launch file's FSDP for `what`.

    Raises:
        ConfigError: says what, and what to do instead.
    """
    if _asks(environment, USE_FSDP):
        raise ConfigError(
            f"accelerate launch: FSDP is not supported by {what}, and every process would hold the whole model - use "
            "it for `rlhf sft`, `rlhf reward-model` and `rlhf ppo`, and call the rest without it"
        )


def fsdp2_settings(environment: Mapping[str, str]) -> Fsdp2Settings | None:
    """Return what a launch file says about FSDP2; None where it does not ask for it.

    Raises:
        ConfigError: it asks for something else than is done.
    """
    if not _asks(environment, USE_FSDP):
        return None
    for name, key in KEYS.items():
        found = environment.get(key.variable, "")
        if found.lower() not in key.accepted:
            raise ConfigError(f"accelerate launch: {name}: {found or 'missing'} is not supported - {key.fix}")
    names = environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    return Fsdp2Settings(
        reshard_after_forward=environment["FSDP_RESHARD_AFTER_FORWARD"].lower() == "true",
        offload=environment.get("FSDP_OFFLOAD_PARAMS", "").lower() == "true",
        blocks=tuple(name.strip() for name in names.split(",") if name.strip()),
    )


@contextmanager
def hidden_from_accelerate() -> Iterator[None]:
    """Hide from accelerate what is done here: it would attach its own FSDP on GPUs, and none on a CPU."""
    asked = {name: os.environ.pop(name) for name in (USE_FSDP, MIXED_PRECISION) if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(asked)


def launched_precision(
    environment: Mapping[str, str], configured: Literal["auto", "float32", "bfloat16"]
) -> Literal["auto", "float32", "bfloat16"]:
    """Return the compute type of a run: `mixed_precision` of the launcher means `model.precision`.

    Args:
        environment: of this process.
        configured: `model.precision`.

    Raises:
        ConfigError: the launcher asks for another type than bfloat16, or the two disagree.
    """
    found = environment.get(MIXED_PRECISION, "").lower()
    if found in NOTHING:
        return configured
    if found != "bf16":
        raise ConfigError(f"accelerate launch: mixed_precision: {found} is not supported - set it to bf16 or no")
    if configured == "float32":
        raise ConfigError(
            "accelerate launch: mixed_precision: bf16, but model.precision: float32 - set one as the other, or leave "
            "model.precision out"
        )
    return "bfloat16"


def _asks(environment: Mapping[str, str], variable: str) -> bool:
    return environment.get(variable, "").lower() not in NOTHING


def _refuse(environment: Mapping[str, str], variable: str) -> None:
    name, ours = SETTINGS[variable]
    raise ConfigError(
        f"accelerate launch: {name}: {environment[variable]} would have no effect - set it to no, and set {ours} in "
        "the configuration of the stage"
    )
