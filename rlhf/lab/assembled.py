"""A PPO run put together in memory, as `rlhf ppo` does it, in one process and without a run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.config import PPOConfig
from rlhf.errors import ConfigError
from rlhf.ppo.assembly import assemble
from rlhf.ppo.parts import Parts
from rlhf.stage import Frame
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.randomness import seed_everything
from rlhf.training.run_directory import RunDirectory


def assembled(given: Mapping[str, Any]) -> Parts:
    """Return the parts of the PPO run that a configuration describes; blocks are never compiled.

    Raises:
        RlhfError: several processes, or bad config, data, model or reward.
    """
    config = PPOConfig.model_validate({"compile": "off", **given})
    processes = Processes()
    if processes.num > 1:
        raise ConfigError(f"lab measures in one process, {processes.num} started - call it without a launcher")
    seed_everything(config.seed)
    # A directory that is not entered is neither made nor locked.
    directory = RunDirectory(Path(config.output_dir), fingerprint="")
    return assemble(
        config, Frame(config, processes, directory, compute_dtype(config.model.precision, processes.device))
    )
