"""The runs that the trials kill: each stage, and PPO with each thing that a checkpoint must hold."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import yaml

from rlhf.config.reading.loader import save_config
from rlhf.training.launch import KEYS, USE_FSDP

OUTPUT = "run"
"""The directory of every run, relative to where its command runs: so that its config.yaml is the same everywhere."""
TIMES = {f"{OUTPUT}/{name}" for name in ("metrics.jsonl", "run.lock", "circumstances.json")}
"""Files with times and processes in them."""
SUPERVISED = [
    "model.precision=float32",
    "steps=6",
    "eval_every=3",
    "checkpoints.every=2",
    "checkpoints.keep=1",
    f"output_dir={OUTPUT}",
]
COMMON = {"output_dir": OUTPUT, "steps": 5, "checkpoints__every": 2, "checkpoints__keep": 1, "samples_every": 2}
"""What all runs of PPO change in `tiny.ppo_config`."""
PPO: dict[str, Callable[[ModuleType, Path], dict[str, Any]]] = {
    "plain": lambda tiny, workshop: {},
    "LoRA": lambda tiny, workshop: {"model__lora": {"r": 2, "alpha": 4.0}},
    "separate critic": lambda tiny, workshop: tiny.separate(workshop),
    "resets": lambda tiny, workshop: {"reset": tiny.reset_section(workshop, 0.5)},
    "own best": lambda tiny, workshop: {"reset": {"fraction": 0.5, "demonstrations": {"kind": "own_best"}}},
    "adaptive KL": lambda tiny, workshop: {"kl_control": {"controller": "adaptive", "target": 0.1, "horizon": 20}},
    "running scale": lambda tiny, workshop: {
        "score__normalise": "running",
        "rewards": [
            {"kind": "function", "path": f"{workshop}/rewards.py:share_of_e", "weight": 2.0, "normalise": "running"},
            {"kind": "model", "path": str(workshop / "reward_model"), "weight": 0.5},
        ],
    },
}
"""What each variant of PPO changes besides."""


SHARDS = "PPO in shards"
"""PPO under FSDP2; it takes two processes."""


class Variant(NamedTuple):
    """A command to try."""

    name: str
    arguments: list[str]
    variables: dict[str, str] = {}
    """What its launcher sets."""


def make(directory: Path, tiny: ModuleType, workshop: Path, root: Path) -> dict[str, Variant]:
    """Write the configurations of all variants, and return their commands."""
    data = root / "data"
    start = [f"model.path={workshop}/policy", "batch_size=8", "data.max_length=64", "microbatch_tokens=512"]
    start += ["data.limit=40", "eval_data.max_length=64", "eval_data.limit=8"]
    commands = {
        "SFT": ["sft", f"data.path={data}/sft_train.jsonl", f"eval_data.path={data}/sft_eval.jsonl"],
        "reward model": [
            "reward-model",
            f"data.path={data}/preference_train.jsonl",
            f"eval_data.path={data}/preference_eval.jsonl",
        ],
    }
    made = {name: Variant(name, [*arguments, *start, *SUPERVISED]) for name, arguments in commands.items()}
    for name, changes in PPO.items():
        config = tiny.ppo_config(workshop, **(COMMON | changes(tiny, workshop)))
        path = directory / f"{name.replace(' ', '_')}.yaml"
        save_config(config, path)
        made[f"PPO, {name}"] = Variant(f"PPO, {name}", ["ppo", "--config", str(path)])
    made[SHARDS] = Variant(SHARDS, made["PPO, plain"].arguments, shards(root / "configs/accelerate/fsdp2.yaml"))
    return made


def shards(file: Path) -> dict[str, str]:
    """Return what `accelerate launch` sets for a launch file with FSDP2."""
    asked = yaml.safe_load(file.read_text())["fsdp_config"]
    return {USE_FSDP: "true"} | {KEYS[key].variable: str(value).lower() for key, value in asked.items()}


class Whole(NamedTuple):
    """What an uninterrupted run leaves."""

    place: Path
    files: dict[str, bytes]
    metrics: list[dict[str, Any]]
    seconds: float
    """Of processor time that it took."""
    operations: list[str]
    """What it did with files."""


def differences(place: Path, whole: Whole, on_disk: ModuleType) -> list[str]:
    """Name what a run that was killed and resumed left otherwise."""
    found = on_disk.contents(place)
    names = [f"lacks {name}" for name in sorted(whole.files.keys() - found.keys())]
    names += [f"also holds {name}" for name in sorted(found.keys() - whole.files.keys())]
    both = sorted((whole.files.keys() & found.keys()) - TIMES)
    names += [f"{name} differs" for name in both if whole.files[name] != found[name]]
    metrics = f"{OUTPUT}/metrics.jsonl"
    if metrics in found and on_disk.timeless(place / OUTPUT) != whole.metrics:
        names.append(f"{metrics} differs")
    return names


def moments(name: str, number: int, seconds: float) -> list[float]:
    """Draw moments of a run, in seconds of processor time: one in each of `number` equal parts of it."""
    draw = random.Random(name)
    return [(part + draw.random()) * seconds / number for part in range(number)]


def cleared(place: Path) -> Path:
    """An empty directory."""
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    return place
