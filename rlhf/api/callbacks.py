"""Callbacks: what a trainer reports to a user's code while it trains."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from transformers import PreTrainedModel

from rlhf.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel


class Trainer(Protocol):
    """What every trainer offers a callback."""

    output_dir: Path | None

    @property
    def history(self) -> list[dict[str, float]]:
        """The metrics of every step that this trainer has done."""

    @property
    def model(self) -> "PreTrainedModel | PeftModel":
        """The model in training."""

    def save(self, path: str | Path) -> None:
        """Save the model."""

    def stop(self) -> None:
        """End training after this step."""


class Callback(Protocol):
    """Subclass it and override what you need; each method is called on every process.

    To stop early, return True from `on_step` or call `trainer.stop()`: the run ends after this step as after its last
    one, with evaluation, result and history. An exception ends it too, and reaches your script unchanged.
    """

    def on_step(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> bool | None:
        """Step `step`, counted from 1, is done; `metrics` are what it logs."""

    def on_save(self, trainer: Trainer, path: Path) -> None:
        """The first process has written a checkpoint or a model to the directory `path`."""

    def on_evaluate(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        """The evaluation after step `step` returned `metrics`."""


def checked_callbacks(given: object) -> list[Callback]:
    """Return the callbacks as a list.

    Raises:
        ConfigError: it is not a sequence, or a callback is a class or lacks a method.
    """
    if not isinstance(given, Sequence):
        raise ConfigError(f"callbacks: expected a list of callbacks, found {type(given).__name__}")
    for place, one in enumerate(given):
        missing = [name for name in ("on_step", "on_save", "on_evaluate") if not callable(getattr(one, name, None))]
        if isinstance(one, type) or missing:
            found = (
                f"the class {one.__name__}" if isinstance(one, type) else f"{type(one).__name__}, without {missing[0]}"
            )
            raise ConfigError(f"callbacks[{place}]: expected an object of a subclass of rlhf.Callback, found {found}")
    return list(given)


class Announcer:
    """Tells the callbacks what the loop does, and keeps the metrics of all steps."""

    def __init__(self, trainer: Trainer, callbacks: Sequence[Callback]) -> None:
        """Start with an empty history."""
        self.history: list[dict[str, float]] = []
        self.wants_stop = False
        self._trainer = trainer
        self._callbacks = callbacks

    def stepped(self, step: int, metrics: dict[str, float]) -> None:
        """Keep the metrics of a step, in place of those of an earlier run from there on."""
        while self.history and self.history[-1]["step"] >= step:
            self.history.pop()
        self.history.append({"step": float(step), **metrics})
        for callback in self._callbacks:
            if callback.on_step(self._trainer, step, metrics) is True:
                self.wants_stop = True

    def evaluated(self, step: int, metrics: dict[str, float]) -> None:
        """Keep the metrics of an evaluation with those of its step."""
        if self.history:  # empty if the run resumed from a checkpoint with no steps left
            self.history[-1] |= metrics
        for callback in self._callbacks:
            callback.on_evaluate(self._trainer, step, metrics)

    def saved(self, path: Path) -> None:
        """Tell the callbacks where something was saved."""
        for callback in self._callbacks:
            callback.on_save(self._trainer, path)
