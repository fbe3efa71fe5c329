"""The schema of `rlhf run`: a whole recipe."""

from pydantic import Field

from rlhf.config.evaluate import EvaluateConfig
from rlhf.config.ppo import PPOConfig
from rlhf.config.reward_model import RewardModelConfig
from rlhf.config.sft import SftConfig
from rlhf.config.shared import Section

STAGES = ("sft", "reward_model", "ppo", "evaluate")
"""The sections of a recipe in the order in which they run."""


class RunConfig(Section):
    """Stages in order; a stage whose section is left out does not run.

    In every string `{output_dir}` stands for the recipe's output directory, and a stage's own output directory is
    `{output_dir}/STAGE` unless its section says otherwise. A `seed` at the top is the seed of each stage without one.
    """

    output_dir: str = Field(description="directory under which each stage has its own")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every stage that names none")
    sft: SftConfig | None = Field(None, description="the section, or the path of the stage's own file")
    reward_model: RewardModelConfig | None = Field(None, description="the section, or the path of the stage's own file")
    ppo: PPOConfig | None = Field(None, description="the section, or the path of the stage's own file")
    evaluate: EvaluateConfig | None = Field(None, description="the section, or the path of the stage's own file")
