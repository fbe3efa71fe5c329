"""The frame of a training stage, shared by SFT, reward model and PPO: processes, run directory, data, model, loop."""

import os
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from rlhf.config import EvaluateConfig, EvaluateSettings
from rlhf.config.reading.loader import save_config
from rlhf.config.shared import ChatSection, DataSection
from rlhf.config.stage import StageConfig, StageSettings
from rlhf.data.overlap import check_overlap
from rlhf.data.reading.rows import stream_rows
from rlhf.data.records import Prepared, Row
from rlhf.errors import GuardStop
from rlhf.fetch import resolve
from rlhf.models.passes.checkpointing import is_checkpointed
from rlhf.models.passes.compiled import compile_blocks, compiles
from rlhf.models.passes.fused import computes_by_kernels
from rlhf.models.passes.matrices import largest_matrix
from rlhf.models.passes.packing import choose_packing, is_packable
from rlhf.models.passes.quantized import quantized_layers
from rlhf.models.passes.rotary import choose_factors
from rlhf.models.pretrained.hub import check_hub
from rlhf.stage.rules import check_quantized, check_sharded, rules_of
from rlhf.training.determinism import use_determinism
from rlhf.training.keeping import sharded_by
from rlhf.training.launch import launched_precision
from rlhf.training.loop import Loop
from rlhf.training.precision import compute_dtype
from rlhf.training.processes import Processes, is_main_by_launch
from rlhf.training.protocol import LoopSettings, Observer, Steps
from rlhf.training.randomness import seed_everything
from rlhf.training.sharding.fsdp2 import Fsdp2
from rlhf.training.storage.checkpoint import JSON
from rlhf.training.storage.fingerprint import content_digest, flattened, json_digest, without_later
from rlhf.training.storage.run_directory import RunDirectory, is_complete, settings_of_result
from rlhf.training.telemetry.circumstances import write_circumstances
from rlhf.training.telemetry.memory import peak_memory_bytes
from rlhf.training.telemetry.metrics import saved_metrics
from rlhf.training.telemetry.profile import GIB, NO_PROFILE, Profile

UNIMPORTANT = (
    *("output_dir", "logging", "checkpoints", "expected_processes", "process_timeout"),
    *("push_to_hub", "hub_private_repo", "on_overlap"),
)
"""Keys of a stage's config that do not change its result; `compile` does, like `precision`: it rounds differently."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a running stage needs: config, processes, run directory, compute type, profile."""

    config: StageSettings
    processes: Processes
    directory: RunDirectory
    dtype: torch.dtype
    """The compute type of the models."""
    profile: Profile = NO_PROFILE
    """Where the time goes, if requested."""
    data: list[str] = field(default_factory=list)
    """What `report` said about the rows that were read."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self.processes.device

    @property
    def loading_device(self) -> torch.device:
        """Where a model waits until `stage_model.held` or `hold_frozen` takes it."""
        return self.processes.sharding.loading_device(self.device)

    def run(
        self,
        steps: Steps,
        *,
        num_steps: int,
        eval_every: int | None,
        description: str,
        shown: tuple[str, ...],
        observer: Observer | None = None,
        num_done: int = 0,
    ) -> None:
        """Do all steps that are left, with logging, evaluation and checkpoints; `observer` follows them.

        The first `num_done` steps were done in this process, and `steps` holds their state: no checkpoint is read.
        """
        settings = LoopSettings(
            num_steps=num_steps,
            log_every=self.config.logging.every,
            checkpoint_every=self.config.checkpoints.every,
            checkpoints_kept=self.config.checkpoints.keep,
            eval_every=eval_every,
            description=description,
            shown=shown,
            rules=rules_of(self.config),
        )
        loop = Loop(
            steps,
            settings,
            self.directory,
            self.processes,
            config=self.config.model_dump(mode="json"),
            fingerprint=self._resumable_with(),
            profile=self.profile,
        )
        start = num_done or loop.resume()
        if self.processes.is_main:  # after resume: a run that it refuses must not overwrite the other run's file
            save_config(self.config, self.directory.path / "config.yaml")
            self._write_circumstances(start)
        try:
            loop.run(start, observer)
        except GuardStop as guard:
            if self.processes.is_main:
                rows = saved_metrics(self.directory.metrics)
                self._write_circumstances(None, (int(rows[-1]["step"]) if rows else start, str(guard)))
            raise
        if self.processes.is_main:
            self._write_circumstances(None)
        self.profile.finish(self.directory.path / "profile.json", description)

    def measure_machine(self, model: PreTrainedModel, microbatch_tokens: int) -> None:
        """Measure, for the profile, how fast this machine multiplies a microbatch by the model's largest matrix."""
        if self.profile.enabled:
            self.profile.measure_machine(largest_matrix(model), microbatch_tokens, self.dtype)

    def report(self, what: str, prepared: Prepared[Any]) -> None:
        """Print what was detected in the rows, how many were kept and what happened to the others."""
        line = f"{what} [{prepared.description}]: {prepared.summary()}"
        self.data.append(line)
        self.processes.say(line)

    def check_overlap(self, training: Iterable[Hashable], heldout: Sequence[Hashable]) -> None:
        """Warn of held-out records that are also in the training data, or refuse them, as the config says.

        Raises:
            DataError: there are some, and `on_overlap` is `error`.
        """
        check_overlap(training, heldout, self.processes.say, self.config.on_overlap)

    def choose_factors(self, longest: int, **models: PreTrainedModel | None) -> None:
        """Fix the rotary factors of models for sequences of up to `longest` tokens, where they depend on it; say so."""
        for name, model in models.items():
            said = None if model is None else choose_factors(model, longest)
            if said is not None:
                self.processes.say(f"{name}: {said}")

    def choose_packing(self, **models: PreTrainedModel | None) -> None:
        """Let models pack rows as the config says, the same on all processes; say so where one cannot.

        Raises:
            ConfigError: `on`, and it cannot.
        """
        for name, model in models.items():
            if model is not None:
                is_possible = not self.processes.any(not is_packable(model))
                said = choose_packing(model, self.config.packing, is_possible=is_possible)
                if said is not None:
                    self.processes.say(f"{name}: {said}")

    def compile_for(self, num_tokens: int, *models: nn.Module) -> None:
        """Compile the models' blocks as the config says, for a run of `num_tokens` over all processes; say so.

        Blocks that run again in the backward pass, are quantized or in shards stay as they are: `on` is refused there.
        `auto` compiles none that our own kernels compute: those are as fast, and need no minute at the start.
        """
        is_fast = self.device.type == "cpu" and all(computes_by_kernels(model) for model in models)
        if self.config.compile == "auto" and is_fast:
            return
        if isinstance(self.processes.sharding, Fsdp2) or any(is_checkpointed(m) or quantized_layers(m) for m in models):
            return
        if compiles(self.config.compile, num_tokens // self.processes.num, self.device):
            compile_blocks(*models)
            self.processes.say("transformer blocks are compiled at their first pass; the first step takes longer")

    def _write_circumstances(self, start: int | None, stop: tuple[int, str] | None = None) -> None:
        """Write what the run runs on, at its start (with the steps that were done) and at its end."""
        facts: dict[str, JSON] = {
            "processes": self.processes.num,
            "device": str(self.device),
            "compute type": _name(self.dtype),
            "data": self.data,
            "peak memory, GiB": round(peak_memory_bytes() / GIB, 2),
            **sharded_by(self.processes),
        }
        write_circumstances(self.directory.path, facts, start, stop)

    def _resumable_with(self) -> dict[str, JSON]:
        """Return what a checkpoint must match, key by key, so that a refusal names what changed."""
        content = {"content of data and models": self.directory.fingerprint.rpartition("-")[2]}
        return {**named_settings(self.config), **content, "compute type": _name(self.dtype)}


def joined(config: StageSettings, path: Path, fingerprint: str, *, profile: bool = False) -> Frame:
    """Join the processes and seed; the run directory at `path` is not entered yet.

    Raises:
        ConfigError: the launcher asks for shards, and the config for what was not seen to work on them.
    """
    use_determinism(wanted=config.deterministic)
    if config.push_to_hub is not None:
        check_hub()
    processes = Processes(
        trackers=config.logging.trackers,
        expected=config.expected_processes,
        project_dir=str(path / "events"),
        timeout=config.process_timeout,
        plain=None,
    )
    if isinstance(processes.sharding, Fsdp2):
        check_sharded(config)
    check_quantized(config, processes.device)
    seed_everything(config.seed)
    directory = RunDirectory(
        path,
        fingerprint=fingerprint,
        settings=named_settings(config),
        resume=config.checkpoints.resume,
        is_main=processes.is_main,
    )
    dtype = compute_dtype(launched_precision(os.environ, config.model.precision), processes.device)
    if processes.any(dtype == torch.float32):  # processes may measure different types but must compute in the same one
        dtype = torch.float32
    return Frame(config, processes, directory, dtype, Profile(processes) if profile else NO_PROFILE)


@contextmanager
def entered(run: Frame, name: str | None = None) -> Iterator[Frame]:
    """Lock the run directory and print where (or as which `name`) it runs; at the end mark it complete and leave it."""
    processes, directory = run.processes, run.directory
    with directory:
        where = f"{name or directory.path}: {processes.num} process(es) on {processes.device}"
        if isinstance(processes.sharding, Fsdp2):
            where += ", weights in shards (FSDP2)"
        processes.say(f"{where}, computing in {_name(run.dtype)}")
        with processes.sharding.noticing_loss():
            yield run
        processes.wait()
        directory.mark_complete()


@contextmanager
def frame(config: StageConfig, fingerprint: str, *, profile: bool = False) -> Iterator[Frame]:
    """Start a stage: join the processes, seed, lock the run directory; at the end mark it complete and leave it.

    `profile` measures where the time goes.
    """
    with entered(joined(config, Path(config.output_dir), fingerprint, profile=profile)) as run:
        yield run


def completed(config: StageConfig | EvaluateConfig, fingerprint: str) -> bool:
    """Whether the stage's result already exists for this config and these inputs; prints a notice if so."""
    path = Path(config.output_dir)
    if not is_complete(path, fingerprint):
        return False
    if is_main_by_launch():
        print(f"{path}: complete, nothing to do", flush=True)
    return True


def has_result(config: StageConfig | EvaluateConfig) -> bool:
    """Whether there is a result for this config; unlike `completed` it does not look at models and data."""
    return settings_of_result(Path(config.output_dir)) == json_digest(_what_counts(config))


def fingerprint(config: StageConfig | EvaluateConfig, inputs: Sequence[str]) -> str:
    """Return what determines a stage's result: a sha256 of its config, and one of the content of its local inputs."""
    return fingerprint_with(config, [content_digest(resolve(path)) for path in inputs])


def fingerprint_with(config: StageSettings | EvaluateSettings, content: Sequence[JSON]) -> str:
    """Return the same from digests of the inputs."""
    chat = config if isinstance(config, ChatSection) else config.model
    files = [] if chat.chat_template is None else [content_digest(chat.chat_template)]
    return f"{json_digest(_what_counts(config))}-{json_digest([*content, *files])}"


def named_settings(config: StageSettings) -> dict[str, JSON]:
    """Return what the fingerprint covers of a config, by names that a user knows: `optimizer.learning_rate`."""
    return flattened(_what_counts(config))


def load_rows(section: DataSection) -> Iterator[Row]:
    """Yield the rows that a data section names, as they are read."""
    return stream_rows(resolve(section.path), split=section.split, limit=section.limit, **section.naming)


def _what_counts(config: StageSettings | EvaluateSettings) -> dict[str, Any]:
    counts = without_later(config.model_dump(mode="json", exclude=set(UNIMPORTANT)))
    assert isinstance(counts, dict)
    return counts


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
