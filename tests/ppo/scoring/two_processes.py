"""What two processes do when a reward fails on one of them only; run as a script by `test_reward_processes.py`."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from rlhf.training.processes import Processes

REWARDS = """
import os, threading
ME = int(os.environ.get("RANK", "0"))
def _here(bad, completions):
    return bad if ME == 1 else [float(len(text)) for text in completions]
def one_nan(completions):
    good = [float(len(text)) for text in completions]
    return [*good[:-1], float("nan")] if ME == 1 else good
def all_nan(completions): return _here([float("nan")] * len(completions), completions)
def short(completions): return _here([1.0], completions)
def nothing(completions): return _here(None, completions)
def raises(completions): return _here(None, completions) if ME != 1 else completions[999]
def hangs(completions):
    if ME == 1: threading.Event().wait()
    return [float(len(text)) for text in completions]
def everywhere_nan(completions): return [float("nan")] * len(completions)
def absent(completions): return _here([None] * len(completions), completions)
"""
CASES = ("one_nan", "all_nan", "short", "nothing", "raises", "hangs", "everywhere_nan", "absent")
POLICIES = ("stop", "drop_episode", "neutral")


def load_tiny_ppo() -> ModuleType:
    """The module `tiny_ppo.py` of the PPO tests."""
    spec = importlib.util.spec_from_file_location("tiny_ppo", Path(__file__).parents[1] / "tiny_ppo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def one_step(tiny: ModuleType, workshop: Path, processes: Processes, case: str, policy: str) -> dict[str, Any]:
    """One PPO step on eight prompts, four a process, and what came of it here."""
    section = {"kind": "function", "path": f"{workshop}/two.py:{case}", "name": "r", "normalise": "running"}
    # Long enough for any answer, and short for what never comes.
    section |= {"on_error": policy, "on_nan": policy, "deadline": 2.0 if case == "hangs" else 60.0}
    made = tiny.parts(tiny.ppo_config(workshop, rewards=[section], epochs=1), processes)
    try:
        result = made.trainer.step(made.prompts[processes.rank :: processes.num])
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    mask = result.experience.rollout.response_mask
    weights = tiny.weights(made.trainer)
    return {
        "kept": mask.any(1).tolist(),
        "scores": result.experience.rollout.scores.tolist(),
        "metrics": result.collected.reward_metrics,
        "num_updates": len(result.updates),
        "weights": float(torch.cat([weight.double().flatten() for weight in weights.values()]).abs().sum()),
        "scale": made.trainer.collector.scorer.state()["reward_scales"]["r"],
    }


def _main(workshop: Path) -> None:
    tiny, processes = load_tiny_ppo(), Processes(expected=2)
    seen = {
        f"{case}/{policy}": one_step(tiny, workshop, processes, case, policy) for case in CASES for policy in POLICIES
    }
    (workshop / f"rewards-{processes.rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
