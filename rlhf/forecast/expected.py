"""How long each stage of a recipe will take here, and what cannot be told."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from rlhf.config import EvaluateConfig, PPOConfig, RewardModelConfig, RunConfig, SftConfig
from rlhf.config.run import STAGES
from rlhf.errors import RlhfError
from rlhf.forecast.comparison import evaluation_load
from rlhf.forecast.load import Load
from rlhf.forecast.origin import Unknown
from rlhf.forecast.ppo import ppo_load, unknown_rewards
from rlhf.forecast.speed import Speed, measured
from rlhf.forecast.supervised import reward_model_load, sft_load
from rlhf.models.passes.matrices import largest_matrix
from rlhf.printable import printable
from rlhf.stage.frame import has_result
from rlhf.training.precision import compute_dtype

Config = SftConfig | RewardModelConfig | PPOConfig | EvaluateConfig
_LOADS: dict[str, Callable[..., tuple[Load, PreTrainedModel]]] = {
    "sft": sft_load,
    "reward_model": reward_model_load,
    "ppo": ppo_load,
    "evaluate": evaluation_load,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is known beforehand of the time of a stage."""

    seconds: float | None
    """None where it cannot be told."""
    reason: str = ""
    """Why it cannot, or what the seconds do not contain; empty otherwise."""
    may_end_early: bool = False
    """Whether a rule may end the stage before its last step; the seconds are those of all steps."""


def expected_of(recipe: RunConfig) -> dict[str, Expected]:
    """Return the stages that have something to do, in order.

    What is named as `fetch:NAME` is fetched, as the stages would do; nothing else is asked of a network. Whatever goes
    wrong here is only a reason why a time cannot be told: the stage itself says what is wrong.
    """
    found: dict[str, Expected] = {}
    speeds: dict[torch.dtype, Speed] = {}
    for stage in STAGES:
        section = getattr(recipe, stage)
        if section is not None and not has_result(section):
            found[stage] = _expected(stage, section, recipe, speeds)
    return found


def _expected(stage: str, section: Config, recipe: RunConfig, speeds: dict[torch.dtype, Speed]) -> Expected:
    if torch.cuda.is_available():
        return Expected(seconds=None, reason="times are forecast for CPUs alone")
    try:
        load, model = _LOADS[stage](section, recipe)
        seconds = _speed_for(section, model, speeds).seconds(load)
    except (Unknown, RlhfError) as problem:
        return Expected(seconds=None, reason=printable(str(problem).partition("\n")[0]))
    except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as problem:  # models of any kind get here
        return Expected(seconds=None, reason=f"its model cannot be counted ({type(problem).__name__})")
    rewards = unknown_rewards(section) if isinstance(section, PPOConfig) else []
    named = f"{'rewards' if len(rewards) > 1 else 'reward'} {', '.join(rewards)}"
    return Expected(
        seconds=seconds,
        reason=f"without its {named}, whose time nobody knows" if rewards else "",
        may_end_early=_may_end_early(section),
    )


def _may_end_early(section: Config) -> bool:
    stops_at_kl = isinstance(section, PPOConfig) and section.kl_control.stop_at_kl is not None
    return stops_at_kl or (not isinstance(section, EvaluateConfig) and section.early_stopping is not None)


def _speed_for(section: Config, model: PreTrainedModel, speeds: dict[torch.dtype, Speed]) -> Speed:
    """Return the speed in the compute type of a stage, measured once for each."""
    precision = section.precision if isinstance(section, EvaluateConfig) else section.model.precision
    dtype = compute_dtype(precision, torch.device("cpu"))
    if dtype not in speeds:
        speeds[dtype] = measured(largest_matrix(model), section.microbatch_tokens, dtype)
    return speeds[dtype]
