"""`rlhf run`: sft -> reward model -> ppo -> evaluate, each skipped if it is complete and its config unchanged."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from rlhf.config import RunConfig
from rlhf.config.run import STAGES
from rlhf.evaluation import evaluate
from rlhf.ppo import train_ppo
from rlhf.reward_model import train_reward_model
from rlhf.sft import train_sft
from rlhf.training.processes import is_main_by_launch
from rlhf.training.telemetry.memory import peak_memory_bytes

_FUNCTIONS: dict[str, Callable[..., Path]] = {
    "sft": train_sft,
    "reward_model": train_reward_model,
    "ppo": train_ppo,
    "evaluate": evaluate,
}
PROFILED = ("sft", "reward_model", "ppo")
"""Stages that can report where their time goes."""


def run(config: RunConfig, *, profile: bool = False) -> Path:
    """Run the stages of a recipe in order, and print how long each took; `profile` goes to those that train.

    Returns:
        The recipe's output directory.

    Raises:
        RlhfError: a stage failed; the stages before it stay complete.
    """
    for name in STAGES:
        section = getattr(config, name)
        if section is None:
            continue
        _say(f"== {name}")
        started = time.perf_counter()
        options = {"profile": True} if profile and name in PROFILED else {}
        result = _FUNCTIONS[name](section, **options)
        seconds, gib = time.perf_counter() - started, peak_memory_bytes() / 2**30
        _say(f"== {name}: {result} after {seconds:.0f} s, peak memory of the run so far {gib:.1f} GiB")
    _show_summary(config)
    return Path(config.output_dir)


def _show_summary(config: RunConfig) -> None:
    if config.evaluate is None:
        return
    comparison = Path(config.evaluate.output_dir) / "comparison.json"
    policies = json.loads(comparison.read_text(encoding="utf-8"))["policies"]
    for name, numbers in policies.items():
        rate = numbers["gold_win_rate"]
        if rate is not None:
            _say(f"{name}: win rate on the gold judge {rate['mean']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]")


def _say(line: str) -> None:
    if is_main_by_launch():
        print(line, flush=True)
