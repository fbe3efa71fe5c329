"""What every trainer has: settings, callbacks, history, a run directory, and a `save` that overwrites nothing else."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from transformers import PreTrainedModel

from rlhf.api.callbacks import Announcer, Callback, checked_callbacks
from rlhf.api.run_directory import run_in
from rlhf.config.section import Section
from rlhf.config.shared import InRunDirectory
from rlhf.config.stage import StageSettings
from rlhf.errors import CheckpointError, ConfigError, HubError, Terminated
from rlhf.models.pretrained.hub import check_hub
from rlhf.models.pretrained.setup import Trainable
from rlhf.stage.frame import Frame, fingerprint_with, joined, named_settings
from rlhf.stage.model import push, push_result
from rlhf.stage.model_card import Card
from rlhf.training.keeping import longer_run
from rlhf.training.launch import check_unsharded_launch
from rlhf.training.storage.fingerprint import lengthened
from rlhf.training.storage.run_directory import is_complete
from rlhf.training.telemetry.metrics import saved_metrics

if TYPE_CHECKING:
    from peft import PeftModel

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
            ConfigError: something that is not a callback, settings that need `output_dir`, or a launch with FSDP.
        """
        if output_dir is None and (config.checkpoints.every is not None or config.logging.trackers):
            raise ConfigError("checkpoints.every, logging.trackers: they need output_dir - give one")
        self.config = config
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.callbacks: Sequence[Callback] = checked_callbacks(callbacks)
        self._announcer = Announcer(self, self.callbacks)
        check_unsharded_launch(os.environ, "the trainers of the Python API")
        self._run = joined(config, self.output_dir or Path(), "")
        self.processes = self._run.processes
        self._given = config
        self._is_taken_up = False
        self._is_merged = False
        self._has_failed = False

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of every step that this trainer has done, named as in metrics.jsonl."""
        return self._announcer.history

    @property
    def model(self) -> "PreTrainedModel | PeftModel":
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

    def push_to_hub(self, repo: str | None = None, *, private: bool | None = None) -> str:
        """Upload the model as `save` writes it to the Hugging Face hub, from the first process.

        Args:
            repo: `user/name`; None takes `push_to_hub` of the config.
            private: whether a repository that is made for it is private; None: as the config or its owner says.

        Returns:
            The address of the model.

        Raises:
            ConfigError: no repository is named, or there is no access token.
            HubError: the upload failed.
        """
        name = repo or self.config.push_to_hub
        if name is None:
            raise ConfigError("push_to_hub: no repository - give user/name")
        check_hub()
        is_private = self.config.hub_private_repo if private is None else private
        with tempfile.TemporaryDirectory(prefix="rlhf-") as temporary:
            directory = Path(temporary) / self.result
            if self.processes.is_main:
                self._write(directory)
            kept = "the model is still here: trainer.save(path) writes it to a directory"
            return str(self._pushed(partial(push, directory, name, private=is_private, kept=kept)))

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

    def _finished(self) -> list[dict[str, float]]:
        """Upload the result if the config says so, and return the history."""
        if self.config.push_to_hub is not None and self.output_dir is None:
            self.push_to_hub()
        elif self.output_dir is not None:
            self._pushed(partial(push_result, self.config, self.output_dir / self.result))
        return self.history

    def _pushed(self, call: Callable[[], Any]) -> Any:
        """Call what uploads on the first process; what it returned, or that it failed, is known to all."""
        found: list[Any] = []
        if self.processes.is_main:
            try:
                found = [call()]
            except HubError as error:
                found = [error]
        (one,) = self.processes.gathered(found)
        if isinstance(one, HubError):
            raise one
        return one

    def _save(self, directory: Path, write: Callable[[], None]) -> None:
        """Let the first process write into a directory, and tell the callbacks."""
        if self.processes.is_main:
            write()
        self.processes.wait()
        self._announcer.saved(directory)

    def _takes_up(self, inputs: Sequence[str]) -> bool:
        """Take up the model and the history of this very run if `output_dir` holds its complete result, and say so.

        Args:
            inputs: digests of what determines the result besides the config.
        """
        if self.output_dir is None or self._is_taken_up or self._num_done:
            return False
        if not is_complete(self.output_dir, fingerprint_with(self.config, inputs)):
            return False
        self.processes.say(f"{self.output_dir}: complete, nothing to do")
        self.history[:] = saved_metrics(self.output_dir / "metrics.jsonl")
        self._load_result(self.output_dir)
        self._is_taken_up = True
        return True

    @contextmanager
    def _entered(self, inputs: Sequence[str]) -> Iterator[Frame]:
        """Enter the run directory for one call of `train`; a trainer whose steps are done gets as many more.

        Args:
            inputs: digests of what determines the result besides the config.

        Raises:
            ConfigError: this trainer cannot go on.
        """
        if self._has_failed:
            raise ConfigError("train: its last call ended with an error, maybe inside a step - make another trainer")
        if self._is_merged:
            raise ConfigError("train: the adapter of a finished run was merged - make another trainer with more steps")
        before, num_done, self._announcer.wants_stop = self.config, self._num_done, False
        if self._is_taken_up or self._is_spent:
            self._use(self._longer())
            longer = lengthened(named_settings(before), named_settings(self.config))
            if num_done and longer is not None:  # otherwise the loop says so when it finds the checkpoint
                self.processes.say(longer_run(longer, num_done))
        try:
            with run_in(self.output_dir, replace(self._run, config=self.config), inputs, self.stage) as run:
                yield run
            self._is_taken_up = False
        except (CheckpointError, Terminated):  # between two steps
            raise
        except BaseException:
            self._has_failed = True
            raise
        finally:
            if self._num_done == num_done:
                self._use(before)

    def _longer(self) -> StageSettings:
        """Return the settings of a run that is longer by the length of the settings that were given."""
        given = self._given.model_dump(include={"steps", "epochs"})
        key = "epochs" if given["steps"] is None else "steps"
        return self.config.model_copy(update={key: getattr(self.config, key) + given[key]})

    @property
    def _card(self) -> Card:
        """What the cards of the models say."""
        samples = None if self.output_dir is None else self._run.directory.samples
        run = replace(self._run, config=self.config)
        return Card(run=run, last=self.history[-1] if self.history else {}, samples=samples)

    def _use(self, config: StageSettings) -> None:
        """Go on with settings of another length."""
        self.config = config

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

    @property
    def _num_done(self) -> int:
        """How many steps this trainer has done and holds the state of."""
        raise NotImplementedError

    @property
    def _is_spent(self) -> bool:
        """Whether it has done all steps of its settings."""
        raise NotImplementedError

    def _load_result(self, output_dir: Path) -> None:
        """Load what the finished run in a directory made of the model."""
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


def check_evaluation(evaluation: object, every: int | None, config: StageSettings) -> None:
    """Refuse a number of steps between evaluations that is below 1, or missing where one is needed.

    Raises:
        ConfigError: says what was found.
    """
    if every is not None and evaluation is None:
        raise ConfigError("evaluate_every: there is no evaluation - give held-out rows or a function")
    if every is not None and every < 1:
        raise ConfigError(f"evaluate_every: expected at least 1, found {every}")
    if config.best is not None and every is None:
        raise ConfigError("best: an evaluation at the end alone leaves nothing to choose from - give evaluate_every")


def _measured_by_user(found: object) -> dict[str, float]:
    if not isinstance(found, Mapping) or not all(isinstance(value, int | float) for value in found.values()):
        raise ConfigError(f"evaluation: expected a mapping of names to numbers, the function returned {found!r:.100}")
    return {str(name): float(value) for name, value in found.items()}
