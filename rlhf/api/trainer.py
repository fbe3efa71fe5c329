"""What every trainer has: settings, callbacks, history, a run directory, and a `save` that overwrites nothing else."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from peft import PeftModel
from transformers import PreTrainedModel

from rlhf.api.callbacks import Announcer, Callback, checked_callbacks
from rlhf.api.run_directory import run_in
from rlhf.config.shared import InRunDirectory, Section, StageSettings
from rlhf.errors import CheckpointError, ConfigError
from rlhf.models.pretrained.setup import Trainable
from rlhf.stage import Frame, joined

S = TypeVar("S", bound=Section)


class StageTrainer:
    """The frame of `SFTTrainer`, `RewardTrainer` and `PPOTrainer`."""

    stage: ClassVar[str]
    """The name of the run in its output."""
    result: ClassVar[str]
    """The directory under `output_dir` that receives the model."""

    def __init__(self, config: StageSettings, output_dir: str | Path | None, callbacks: object) -> None:
        """Check what all trainers take, join the processes, and seed the global generators, as a stage does.

        Raises:
            ConfigError: something that is not a callback, or settings that need `output_dir`.
        """
        if output_dir is None and (config.checkpoints.every is not None or config.logging.trackers):
            raise ConfigError("checkpoints.every, logging.trackers: they need output_dir - give one")
        self.config = config
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.callbacks: Sequence[Callback] = checked_callbacks(callbacks)
        self._announcer = Announcer(self, self.callbacks)
        self._run = joined(config, self.output_dir or Path(), "")
        self.processes = self._run.processes

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of every step that this trainer has done, named as in metrics.jsonl."""
        return self._announcer.history

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """The model in training, in the run's compute type; the peft model if it has an adapter."""
        return self._trained.model if self._trained.adapter is None else self._trained.adapter

    def save(self, path: str | Path) -> None:
        """Save the model in float32 as a directory that transformers (or peft) loads.

        Raises:
            CheckpointError: the path holds something else, or cannot be written.
        """
        directory = Path(path).absolute()
        if self.processes.any(self._holds_something_else(directory)):
            raise CheckpointError(
                f"{path}: holds something other than a {self.result.replace('_', ' ')} saved here - choose another "
                "directory"
            )
        self._save(directory, partial(self._write, directory))

    def stop(self) -> None:
        """End training after this step, as after the last one; callbacks and rewards may call it."""
        self._announcer.wants_stop = True

    def close(self) -> None:
        """Release what the trainer holds open."""

    def __enter__(self) -> Self:
        """Return the trainer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the trainer."""
        self.close()

    def _save(self, directory: Path, write: Callable[[], None]) -> None:
        """Let the first process write into a directory, and tell the callbacks."""
        if self.processes.is_main:
            write()
        self.processes.wait()
        self._announcer.saved(directory)

    def _entered(self, inputs: Sequence[str]) -> AbstractContextManager[Frame]:
        """Enter the run directory; `inputs` are digests of what determines the result besides the config."""
        return run_in(self.output_dir, self._run, inputs, stage=self.stage, result=self.result)

    def _measuring(
        self, evaluation: Any, of_rows: Callable[[Any], Callable[[], dict[str, float]]]
    ) -> Callable[[], dict[str, float]]:
        """Return the evaluation to run: an empty one, the user's function, or what `of_rows` makes of held-out rows."""
        if evaluation is None:
            return dict
        if callable(evaluation):
            return lambda: _measured_by_user(evaluation(self))
        return of_rows(evaluation)

    @property
    def _trained(self) -> Trainable:
        raise NotImplementedError

    def _holds_something_else(self, directory: Path) -> bool:
        """Whether a path holds anything but what this kind of trainer saved, which may be replaced."""
        raise NotImplementedError

    def _write(self, directory: Path) -> None:
        raise NotImplementedError


def checked_config(config: object, kind: type[S], order: str) -> S:
    """Return settings of the right kind; `order` lists the arguments, as one is often left out.

    Raises:
        ConfigError: they are missing, of another kind, or a YAML file's, whose paths would have no effect.
    """
    if config is None:
        raise ConfigError(f"config: it is missing - give {kind.__name__}(steps=...)")
    if isinstance(config, InRunDirectory):
        raise ConfigError(
            f"config: expected {kind.__name__}, found {type(config).__name__}, whose paths would have no effect here - "
            f"give {kind.__name__}, or run the YAML file"
        )
    if not isinstance(config, kind):
        raise ConfigError(f"config: expected {kind.__name__}, found {type(config).__name__} - the order is {order}")
    return config


def check_evaluation(evaluation: object, every: int | None) -> None:
    """Refuse a number of steps between evaluations that is below 1, or without an evaluation.

    Raises:
        ConfigError: says what was found.
    """
    if every is not None and evaluation is None:
        raise ConfigError("evaluate_every: there is no evaluation - give held-out rows or a function")
    if every is not None and every < 1:
        raise ConfigError(f"evaluate_every: expected at least 1, found {every}")


def check_untrained(num_steps: int) -> None:
    """Refuse to train twice: the learning-rate schedule has ended.

    Raises:
        ConfigError: says how many steps were done.
    """
    if num_steps:
        raise ConfigError(f"train: this trainer has done {num_steps} steps already - make another one")


def _measured_by_user(found: object) -> dict[str, float]:
    if not isinstance(found, Mapping) or not all(isinstance(value, int | float) for value in found.values()):
        raise ConfigError(f"evaluation: expected a mapping of names to numbers, the function returned {found!r:.100}")
    return {str(name): float(value) for name, value in found.items()}
