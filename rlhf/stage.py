"""The frame of a training stage: processes, run directory, data, model, loop; what SFT, reward model and PPO share."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rlhf.config import EvaluateConfig
from rlhf.config.loader import save_config
from rlhf.config.shared import DataSection, ModelSection, OptimizerSection, StageConfig
from rlhf.data.dataset_type import detect_type
from rlhf.data.records import Prepared
from rlhf.data.sources import Row, read_rows
from rlhf.fetch import resolve
from rlhf.models.setup import Trainable, make_trainable, save_adapter_base, save_model
from rlhf.training.atomic import atomic_directory
from rlhf.training.loop import Loop, LoopSettings, Steps
from rlhf.training.optimizer import MasterWeights, OptimizerSettings
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes
from rlhf.training.randomness import seed_everything
from rlhf.training.run_directory import RunDirectory, is_complete

UNIMPORTANT = ("output_dir", "logging", "checkpoints", "expected_processes")
"""Keys of a stage's config that do not change its result."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a running stage stands on."""

    config: StageConfig
    processes: Processes
    directory: RunDirectory
    dtype: torch.dtype
    """What models compute in."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device

    def run(self, steps: Steps, *, num_steps: int, eval_every: int | None, description: str, shown: tuple[str, ...]) -> None:
        """Do all steps that are left, with logging, evaluation and checkpoints."""
        settings = LoopSettings(
            num_steps=num_steps,
            log_every=self.config.logging.every,
            checkpoint_every=self.config.checkpoints.every,
            checkpoints_kept=self.config.checkpoints.keep,
            eval_every=eval_every,
            description=description,
            shown=shown,
        )
        Loop(steps, settings, self.directory, self.processes, self.config.model_dump(mode="json")).run()

    def report(self, what: str, prepared: Prepared[Any]) -> None:
        """Print how many rows were taken and what happened to the others."""
        counts = ", ".join(f"{name} {count}" for name, count in prepared.counts.items() if count or name == "kept")
        self.processes.say(f"{what}: {counts}")


@contextmanager
def frame(config: StageConfig, fingerprint: str) -> Iterator[Frame]:
    """Start a stage: join the processes, seed, lock the run directory, save the config; leave them at the end."""
    path = Path(config.output_dir)
    processes = Processes(
        trackers=config.logging.trackers, expected=config.expected_processes, project_dir=str(path / "events")
    )
    seed_everything(config.seed)
    directory = RunDirectory(path, fingerprint=fingerprint, resume=config.checkpoints.resume, is_main=processes.is_main)
    dtype = compute_dtype(config.model.precision, processes.device)
    with directory:
        if processes.is_main:
            save_config(config, path / "config.yaml")
        processes.say(f"{path}: {processes.num} process(es) on {processes.device}, computing in {_name(dtype)}")
        yield Frame(config, processes, directory, dtype)
        processes.wait()
        directory.mark_complete()


def completed(config: StageConfig | EvaluateConfig, fingerprint: str) -> bool:
    """Whether the stage's result is there already, with this config and these inputs; says so."""
    path = Path(config.output_dir)
    if not is_complete(path, fingerprint):
        return False
    print(f"{path}: complete, nothing to do", flush=True)
    return True


def fingerprint(config: StageConfig | EvaluateConfig, inputs: Sequence[str]) -> str:
    """Return a sha256 over what decides a stage's result: its config and the content of its local inputs."""
    content = config.model_dump(mode="json", exclude=set(UNIMPORTANT))
    return hashlib.sha256(json.dumps([content, [_digest(path) for path in inputs]]).encode()).hexdigest()


def load_rows(section: DataSection) -> list[Row]:
    """Read the rows that a data section names."""
    return read_rows(resolve(section.path), split=section.split, column_map=section.column_map, limit=section.limit)


def describe_rows(section: DataSection, rows: Sequence[Row]) -> str:
    """Return where rows come from and which type was detected."""
    return f"{section.path} [{detect_type(rows)}]"


def trainable(section: ModelSection, load: Callable[..., Any]) -> Trainable:
    """Load the model of a section with `load` and decide what of it is trained."""
    source = resolve(section.path)
    model = load(source, random_init=section.random_init, trust_remote_code=section.trust_remote_code)
    lora = None if section.lora is None else section.lora.model_dump()
    return make_trainable(model, source, lora=lora, trainable_layers=section.trainable_layers)


def optimizer_settings(section: OptimizerSection) -> OptimizerSettings:
    """Return the section as the optimizer takes it."""
    return OptimizerSettings(**section.model_dump())


def export(
    trained: Trainable, weights: MasterWeights, tokenizer: PreTrainedTokenizerBase, directory: Path, extra: Callable[[Path], None] | None = None
) -> None:
    """Save a trained model in float32, whole or not at all; `extra` writes files beside it."""
    with weights.in_full_precision(), atomic_directory(directory) as temporary:
        if trained.adapter is not None and trained.starts_from_adapter:
            save_adapter_base(trained, directory.with_name("base_model").absolute())
        save_model(trained, tokenizer, temporary)
        if extra is not None:
            extra(temporary)


def parameters_of(module: nn.Module, prefix: str = "") -> dict[str, nn.Parameter]:
    """Return the trained parameters whose names start with `prefix`."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad and name.startswith(prefix)}


def _digest(path: str) -> str:
    place = Path(resolve(path))
    files = sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else [place]
    if not all(file.is_file() for file in files):
        return path
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
