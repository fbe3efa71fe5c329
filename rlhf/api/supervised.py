"""What `SFTTrainer` and `RewardTrainer` share: rows in, a trained model out."""

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from transformers import PreTrainedTokenizerBase

from rlhf.api.data import GivenRows, digest_of_items, given_source
from rlhf.api.trainer import StageTrainer, check_evaluation
from rlhf.config import RewardSettings, SFTSettings
from rlhf.config.shared import FittingSection
from rlhf.config.stage import StageSettings
from rlhf.models.pretrained.setup import Trainable
from rlhf.stage.model import take_up
from rlhf.stage.supervised import (
    Finishing,
    Learner,
    SupervisedRun,
    Task,
    check_length,
    make_optimizer,
    nothing_to_finish,
    prepared_items,
)
from rlhf.training.optimizer import Optimizer
from rlhf.training.supervised import switch_dropout

T = TypeVar("T", bound=Hashable)

Evaluation = Callable[[Any], Mapping[str, float]] | GivenRows
"""A function of the trainer that returns metrics, or held-out rows."""

NOTE = "training.json"
"""The file in which `save` names the trainer: `save` may replace a directory that has it."""


class SupervisedTrainer(StageTrainer, Generic[T]):
    """Trains a model on rows. A subclass makes the model (`_learner`) and says what it learns (`_task`)."""

    config: SFTSettings | RewardSettings
    _task: Task[T]
    _learner: Learner
    _digests: list[str]
    """Of the model; empty without a run directory."""
    _optimizer: Optimizer | None = None
    """From the first call of `train` on."""

    def train(
        self, data: GivenRows, *, evaluation: Evaluation | None = None, evaluate_every: int | None = None
    ) -> list[dict[str, float]]:
        """Do the `epochs` or `steps` of the config; metrics, checkpoints and the model go to `output_dir`.

        A stopped run in `output_dir` resumes from its newest checkpoint; of a complete one, model and history are taken
        up and nothing is done. Another call does as many steps again.

        Args:
            data: mappings, a data set, or the name of one.
            evaluation: held-out rows of the same kind; or a function of this trainer that returns metrics.
            evaluate_every: steps between evaluations; None evaluates only after the last step.

        Returns:
            The metrics of each step that this trainer has done, named as in metrics.jsonl.

        Raises:
            RlhfError: bad data or checkpoint, or a guard or a signal stopped the run.
        """
        return self._train(data, evaluation, evaluate_every)

    def evaluate(self, rows: GivenRows) -> dict[str, float]:
        """Return the metrics of held-out rows; does not affect training.

        Raises:
            RlhfError: a row cannot be used.
        """
        return self._measure(self._held_out(rows))

    def _train(
        self,
        data: GivenRows,
        evaluation: Evaluation | None,
        evaluate_every: int | None,
        finishing: Finishing = nothing_to_finish,
        inputs: Sequence[str] = (),
    ) -> list[dict[str, float]]:
        """Train; `inputs` are digests of what `finishing` reads."""
        check_evaluation(evaluation, evaluate_every, self.config)
        items = self._items(data, "data", self.config.data)
        measure = self._measuring(evaluation, partial(self._measuring_rows, items))
        finish = finishing(self._learner, self._run)
        everything = [*self._digests, digest_of_items(items), *inputs]
        if self._takes_up(everything):
            return self._finished()
        with self._entered(everything) as run:
            ready = SupervisedRun(task=self._task, learner=self._learner, items=items, measure=measure)
            self._optimizer = self._optimizer or make_optimizer(self._task, self._learner.weights, run)
            ready.train(run, eval_every=evaluate_every, observer=self._announcer, optimizer=self._optimizer)
            finish()
            if self.output_dir is not None:
                target = self.output_dir / self.result
                self._save(target, partial(self._learner.save, target, self._write_card))
        return self._finished()

    def _measuring_rows(self, training: Sequence[T], rows: GivenRows) -> Callable[[], dict[str, float]]:
        held_out = self._held_out(rows)
        self._run.check_overlap(training, held_out)
        return partial(self._measure, held_out)

    def _measure(self, items: Sequence[T]) -> dict[str, float]:
        switch_dropout(self._learner.weights.module, on=False)
        return self._task.held_out(self._learner, items, self._run)

    def _held_out(self, rows: GivenRows) -> list[T]:
        return self._items(rows, "evaluation", self.config.eval_data or self.config.data)

    def _items(self, rows: GivenRows, name: str, fitting: FittingSection) -> list[T]:
        source = given_source(rows, name, fitting)
        items = prepared_items(self._task, source, self._learner.tokenizer, self._run)
        check_length(self._learner.trained.model, self._task.longest(items), source)
        return items

    @property
    def _trained(self) -> Trainable:
        return self._learner.trained

    @property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        return self._learner.tokenizer

    @property
    def _num_done(self) -> int:
        return 0 if self._optimizer is None else self._optimizer.num_done

    @property
    def _is_spent(self) -> bool:
        return self._optimizer is not None and 0 < self._optimizer.num_updates <= self._optimizer.num_done

    def _use(self, config: StageSettings) -> None:
        super()._use(config)
        self._task = replace(self._task, settings=config)  # type: ignore[type-var]  # a task is a dataclass

    def _load_result(self, output_dir: Path) -> None:
        take_up(self._learner.trained, self._learner.weights, output_dir / self.result)
        self._is_merged = self._learner.trained.is_merged_when_saved

    def _holds_something_else(self, directory: Path) -> bool:
        if not directory.is_dir():
            return directory.exists()
        return any(directory.iterdir()) and not (directory / NOTE).is_file()

    def _write(self, directory: Path) -> None:
        self._learner.save(directory, self._write_note)

    def _write_note(self, directory: Path) -> None:
        steps = int(self.history[-1]["step"]) if self.history else 0
        note = {"trainer": type(self).__name__, "steps": steps, "settings": self.config.model_dump(mode="json")}
        (directory / NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        self._write_card(directory)

    def _write_card(self, directory: Path) -> None:
        self._card.write(directory, self._task.kind, self._learner.trained.source)
