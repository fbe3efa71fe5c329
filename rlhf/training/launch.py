"""What a launcher asks for by environment variables and this code does not do: refused, never ignored in silence."""

from collections.abc import Mapping

from rlhf.errors import ConfigError

SHARDING = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism_config",
}
"""Variables that `accelerate launch` sets to true (accelerate/utils/launch.py), and what they stand for."""
SETTINGS = {
    "ACCELERATE_MIXED_PRECISION": ("mixed_precision", "model.precision: bfloat16 or float32"),
    "ACCELERATE_DYNAMO_BACKEND": ("dynamo_backend", "compile: on"),
}
"""Variables that `accelerate launch` sets to `no` unless asked: its own name for each, and ours."""
NOTHING = ("", "no", "none", "false", "0")


def check_launch(environment: Mapping[str, str]) -> None:
    """Refuse what the launcher asks for and would not get.

    Raises:
        ConfigError: says what, and what to set instead.
    """
    for variable, name in SHARDING.items():
        if environment.get(variable, "").lower() not in NOTHING:
            raise ConfigError(
                f"accelerate launch: {name} is not supported yet, and every process would hold the whole model - use "
                "`distributed_type: MULTI_GPU` (configs/accelerate/two_processes.yaml), with model.lora or a smaller "
                "model where memory is short"
            )
    for variable, (name, ours) in SETTINGS.items():
        found = environment.get(variable, "")
        if found.lower() not in NOTHING:
            raise ConfigError(
                f"accelerate launch: {name}: {found} would have no effect - set it to no, and set {ours} in the "
                "configuration of the stage"
            )
