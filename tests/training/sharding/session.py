"""Run as a script, once for each process: does the runs that a JSON file lists, plain or in shards.

A run is what `run` makes: its output goes to the directory `name` beside the file. Tests import this to
list runs, and to read what they left.
"""

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import rlhf.sampling.sampler
from rlhf.config import RewardModelConfig, SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import RlhfError
from rlhf.ppo import train_ppo
from rlhf.ppo.run.steps import PPOSteps
from rlhf.reward_model import train_reward_model
from rlhf.sft import train_sft
from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.supervised import SupervisedSteps

TESTS = Path(__file__).parents[2]
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
"""What `accelerate launch` sets for configs/accelerate/fsdp2.yaml."""
SUPERVISED = ["epochs=null", "steps=4", "batch_size=7", "microbatch_tokens=50", "eval_every=4"]
SUPERVISED += ["data.limit=20", "eval_data.limit=5", "checkpoints.every=null"]
SUPERVISED += ["optimizer.learning_rate=1e-3"]
"""Microbatches of a batch that two processes cannot share equally."""


class PowerCutError(Exception):
    """Ends a run in the middle of it."""


def run(stage: str, name: str, *, sharded: bool = True, stops_at: int | None = None, **changes: Any) -> dict[str, Any]:
    """Describe a run; `changes` are dotted paths with __ for the dot, and the power is cut before step `stops_at`."""
    return {"stage": stage, "name": name, "sharded": sharded, "stops_at": stops_at, "changes": changes}


def both(stage: str, name: str, **changes: Any) -> list[dict[str, Any]]:
    """Describe a run, plain and in shards."""
    return [run(stage, f"{name}-plain", sharded=False, **changes), run(stage, f"{name}-sharded", **changes)]


def resumed(stage: str, name: str, **changes: Any) -> list[dict[str, Any]]:
    """Describe `both`, with checkpoints, and the same in shards again, but it loses its power and is started again."""
    kept, again = {**changes, "checkpoints__every": 1}, f"{name}-again"
    return [*both(stage, name, **kept), run(stage, again, stops_at=2, **kept), run(stage, again, **kept)]


def listed(directory: Path, workshop: Path, runs: Sequence[dict[str, Any]]) -> Path:
    """Write the file that lists runs."""
    file = directory / "runs.json"
    file.write_text(json.dumps({"workshop": str(workshop), "runs": runs}))
    return file


def weights(directory: Path) -> dict[str, Tensor]:
    """Read all weights that a run saved."""
    parts = sorted(directory.glob("*/*.safetensors"))
    return {f"{part.parent.name}/{name}": each for part in parts for name, each in load_file(part).items()}


def difference(directory: Path, name: str) -> float:
    """Return the largest difference between the weights of `both`, which have the same names."""
    one, other = (weights(directory / f"{name}-{how}") for how in ("plain", "sharded"))
    assert one.keys() == other.keys() and one
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def do(described: dict[str, Any], directory: Path, workshop: Path, tiny: ModuleType) -> None:
    """Do one run."""
    stage, out, changes = described["stage"], str(directory / described["name"]), described["changes"]
    if stage == "ppo":
        train_ppo(tiny.ppo_config(workshop, output_dir=out, **changes))
        return
    section, train = {"sft": (SftConfig, train_sft), "reward_model": (RewardModelConfig, train_reward_model)}[stage]
    lines = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in changes.items()]
    own = [f"output_dir={out}", "model.random_init=false", f"model.path={workshop / 'policy'}"]
    train(load_config(section, Path(f"configs/smoke/{stage}.yaml"), [*own, *SUPERVISED, *lines]))


@contextmanager
def cut(steps: type, index: int | None) -> Iterator[None]:
    """Cut the power before step `index`."""
    step: Callable[..., dict[str, float]] = steps.step  # type: ignore[attr-defined]

    def until(self: Any, at: int) -> dict[str, float]:
        if at == index:
            raise PowerCutError
        return step(self, at)

    steps.step = until  # type: ignore[attr-defined]
    try:
        yield
    except PowerCutError:
        pass
    finally:
        steps.step = step  # type: ignore[attr-defined]


@contextmanager
def watched(file: Path) -> Iterator[None]:
    """Write down which share of each module this process holds, and how many passes did not count."""
    shard, equalised = Fsdp2.shard, Fsdp2.equalised
    held: dict[str, list[int]] = {}
    spared = 0

    def watch_shard(self: Fsdp2, module: torch.nn.Module, *rest: Any) -> None:
        shard(self, module, *rest)
        local = [each.to_local() if hasattr(each, "to_local") else each for each in module.parameters()]
        whole = sum(each.numel() for each in module.parameters())
        held.setdefault(type(module).__name__, [sum(each.numel() for each in local), whole])

    def watch_equalised(self: Fsdp2, parts: Any, spare: Any) -> Any:
        nonlocal spared
        made = equalised(self, parts, spare)
        spared += sum(not counts for _, counts in made)
        return made

    Fsdp2.shard, Fsdp2.equalised = watch_shard, watch_equalised  # type: ignore[method-assign]
    try:
        yield
    finally:
        Fsdp2.shard, Fsdp2.equalised = shard, equalised  # type: ignore[method-assign]
        if held:
            file.write_text(json.dumps({"held": held, "spared": spared}))


def main(file: Path) -> None:
    """Do the runs of a file; what refuses one is printed."""
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("tiny_ppo", TESTS / "ppo/tiny_ppo.py")
    assert spec is not None and spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    # The packed decoder, which a plain run would take, rounds differently from the one that reads gathered weights.
    rlhf.sampling.sampler.is_packable = lambda model: False
    read = json.loads(file.read_text())
    for described in read["runs"]:
        for name, value in FSDP.items():
            os.environ.pop(name, None)
            if described["sharded"]:
                os.environ[name] = value
        steps = PPOSteps if described["stage"] == "ppo" else SupervisedSteps
        watch = file.parent / f"watched-{described['name']}-{os.environ['RANK']}.json"
        try:
            with cut(steps, described["stops_at"]), watched(watch):
                do(described, file.parent, Path(read["workshop"]), tiny)
        except RlhfError as error:
            print(f"{described['name']}: {error.exit_status}: {error}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
