"""The schema of `rlhf run`: a whole recipe."""

from pathlib import PurePath
from typing import Any

from pydantic import Field

from rlhf.config.evaluate import EvaluateConfig
from rlhf.config.ppo import PPOConfig
from rlhf.config.reward_model import RewardModelConfig
from rlhf.config.section import Section
from rlhf.config.sft import SftConfig
from rlhf.config.shared import filled

STAGES = ("sft", "reward_model", "ppo", "evaluate")
"""The sections of a recipe in the order in which they run."""


class RunConfig(Section):
    """Stages in order; a stage whose section is left out does not run.

    Each stage writes to `output_dir/STAGE`, so that `{run_dir}` in its strings is this `output_dir`. The `seed` here is
    the seed of each stage that sets none.
    """

    output_dir: str = Field(min_length=1, description="directory under which each stage has its own")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every stage that sets none")
    sft: SftConfig | None = Field(None, description="the section, or the path of the stage's own file")
    reward_model: RewardModelConfig | None = Field(None, description="the section, or the path of the stage's own file")
    ppo: PPOConfig | None = Field(None, description="the section, or the path of the stage's own file")
    evaluate: EvaluateConfig | None = Field(None, description="the section, or the path of the stage's own file")

    @classmethod
    def completed(cls, given: dict[str, Any]) -> dict[str, Any]:
        """Return the mapping with each stage's output directory and seed; the loader calls this before validation."""
        run_dir = given.get("output_dir")
        if not isinstance(run_dir, str) or not run_dir:
            return given
        seed = {"seed": given["seed"]} if "seed" in given else {}
        handed = {
            stage: filled({**seed, **given[stage], "output_dir": str(PurePath(run_dir) / stage)}, run_dir)
            for stage in STAGES
            if isinstance(given.get(stage), dict)
        }
        if "ppo" in handed:
            handed["ppo"] = PPOConfig.completed(handed["ppo"])
        return {**given, **handed}
