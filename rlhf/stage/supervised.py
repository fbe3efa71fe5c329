"""A supervised run around its task: rows become items, a model learns from them, the result is saved.

SFT and the reward model are the two tasks; their YAML stages and their Python trainers run this code.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import RewardModelConfig, RewardSettings, SftConfig, SFTSettings
from rlhf.config.shared import DataSection, FittingSection
from rlhf.data.records import Prepared, Row
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.passes.quantized import Kind
from rlhf.models.passes.rotary import record_factors
from rlhf.models.pretrained.loading import context_length, limit_of
from rlhf.models.pretrained.setup import Trainable
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.stage.frame import Frame, completed, fingerprint, frame, load_rows
from rlhf.stage.model import export, held, optimizer_settings, push_result, say_what_is_quantized, trainable
from rlhf.stage.model_card import Card
from rlhf.training.batch_plan import BatchPlan
from rlhf.training.optimizer import Optimizer, ParameterGroup
from rlhf.training.protocol import Observer
from rlhf.training.sharding.weights import Weights
from rlhf.training.supervised import Objective, SupervisedSteps

T = TypeVar("T", bound=Hashable)
"""A record that a task learns from: a demonstration, or a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """A model in training."""

    trained: Trainable
    weights: Weights
    tokenizer: PreTrainedTokenizerBase

    @property
    def pad_id(self) -> int:
        """The token id that pads batches."""
        return int(self.tokenizer.pad_token_id)

    def save(self, directory: Path, extra: Callable[[Path], None] | None = None) -> None:
        """Save the model in float32, whole or not at all; `extra` adds files. Call it on one process only."""
        export(self.trained, self.weights, self.tokenizer, directory, extra)


@dataclass(frozen=True, slots=True)
class Source:
    """Rows, and what to do with those that do not fit."""

    name: str
    """Where they come from, for messages."""
    rows: Iterable[Row]
    """Those of a file or a hub name are read while they are gone through, once."""
    fitting: FittingSection

    @classmethod
    def of(cls, section: DataSection) -> "Source":
        """Take the rows that a data section names."""
        return cls(section.path, load_rows(section), section)

    @property
    def known_rows(self) -> list[Row]:
        """The rows, in memory: for a source that was made with a list, which can be gone through twice."""
        assert isinstance(self.rows, list)
        return self.rows

    def in_memory(self) -> "Source":
        """Return the source with its rows in memory, so that they can be gone through twice."""
        return Source(self.name, list(self.rows), self.fitting)


class Task(Protocol[T]):
    """What a model learns: to answer as in demonstrations, or to tell which of two texts is better."""

    @property
    def settings(self) -> SFTSettings | RewardSettings:
        """The settings of the run."""

    @property
    def result(self) -> str:
        """The name of the trained weights in the logs, and of the directory that receives them."""

    @property
    def kind(self) -> str:
        """The kind of the model on its card."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Metrics that the progress display shows."""

    def load(
        self, path: str, *, random_init: bool = False, trust_remote_code: bool = False, quantize: Kind | None = None
    ) -> PreTrainedModel:
        """Load the initial model."""

    def kept_in_float32(self, model: PreTrainedModel) -> list[nn.Module]:
        """Return the modules that compute in float32 whatever the run's compute type."""

    def prepared(self, source: Source, tokenizer: PreTrainedTokenizerBase) -> Prepared[T]:
        """Turn rows into items."""

    def longest(self, items: Sequence[T]) -> int:
        """Return the tokens of the longest sequence."""

    def objective(self, learner: Learner, items: Sequence[T]) -> Objective:
        """Return the loss over training items."""

    def held_out(self, learner: Learner, items: Sequence[T], run: Frame) -> dict[str, float]:
        """Return the metrics of held-out items over all processes, without dropout."""


Finishing = Callable[[Learner, Frame], Callable[[], None]]
"""Called before the first step, so that bad inputs fail early; the function it returns is called after the last."""


def nothing_to_finish(learner: Learner, run: Frame) -> Callable[[], None]:
    """Finish nothing."""
    return lambda: None


def run_stage(
    task: Task[T],
    config: SftConfig | RewardModelConfig,
    *,
    finishing: Finishing = nothing_to_finish,
    profile: bool = False,
) -> Path:
    """Run what a YAML file describes; do nothing if its result is complete.

    Returns:
        The directory of the model.

    Raises:
        RlhfError: bad data, model, checkpoint or a non-finite loss.
    """
    target = Path(config.output_dir) / task.result
    mark = fingerprint(config, [config.model.path, *(section.path for section in config.sources)])
    if not completed(config, mark):
        with frame(config, mark, profile=profile) as run:
            ready = _assembled(task, config, run)
            finish = finishing(ready.learner, run)
            ready.train(run, eval_every=config.eval_every)
            finish()
            ready.learner.weights.gather()
            if run.processes.is_main:
                ready.learner.save(target, partial(Card.of(run).write, kind=task.kind, source=config.model.path))
    push_result(config, target)
    return target


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedRun(Generic[T]):
    """A supervised run that is ready to begin."""

    task: Task[T]
    learner: Learner
    items: Sequence[T]
    measure: Callable[[], dict[str, float]]
    """Returns the metrics of held-out data, empty when there are none."""

    def train(
        self,
        run: Frame,
        *,
        eval_every: int | None,
        observer: Observer | None = None,
        optimizer: Optimizer | None = None,
    ) -> None:
        """Minimise the objective over the trained weights for the epochs or steps of the settings.

        An `optimizer` that has done steps goes on; None makes one.

        Raises:
            RlhfError: a checkpoint that does not fit, a non-finite loss, or a signal.
        """
        settings, weights = self.task.settings, self.learner.weights
        objective = self.task.objective(self.learner, self.items)
        run.measure_machine(self.learner.trained.model, settings.microbatch_tokens)
        lengths = objective.lengths()
        plan = BatchPlan(
            lengths,
            batch_size=settings.batch_size,
            microbatch_tokens=settings.microbatch_tokens,
            seed=settings.seed,
            packs=objective.packs,
        )
        num_steps = settings.steps or (settings.epochs or 0) * plan.batches_per_epoch
        run.compile_for(num_steps * settings.batch_size * sum(lengths) // len(lengths), weights.module)
        optimizer = optimizer or make_optimizer(self.task, weights, run)
        optimizer.num_updates = num_steps
        steps = SupervisedSteps(objective, plan, optimizer, run.processes, self.measure, run.profile)
        run.run(
            steps,
            num_steps=num_steps,
            eval_every=eval_every,
            description=run.directory.path.name,
            shown=self.task.shown,
            observer=observer,
            num_done=optimizer.num_done,
        )


def prepared_items(task: Task[T], source: Source, tokenizer: PreTrainedTokenizerBase, run: Frame) -> list[T]:
    """Turn rows into items, and print how many were kept.

    Raises:
        DataError: a row cannot be used, or none is left.
        ConfigError: the tokenizer lacks EOS or chat template.
    """
    return reported(task.prepared(source, tokenizer), source, run)


def reported(prepared: Prepared[T], source: Source, run: Frame) -> list[T]:
    """Print how many rows of a source were kept, and return their items."""
    run.report(source.name, prepared)
    return prepared.items


def make_learner(task: Task[Any], run: Frame, trained: Trainable, tokenizer: PreTrainedTokenizerBase) -> Learner:
    """Move a float32 model to its device, keep its master weights, and cast it to the run's compute type."""
    trained.model.to(run.loading_device)  # type: ignore[arg-type]  # transformers wraps the method out of its type
    settings = task.settings
    sections = (settings.data, settings.eval_data, getattr(settings, "demonstrations", None))
    longest = max(each.max_length for each in sections if each is not None)
    run.choose_factors(longest, **{task.result: trained.model})
    if not trained.model.can_generate():  # whoever asks a reward model later must read with the same factors
        record_factors(trained.model)
    run.choose_packing(**{task.result: trained.model})
    say_what_is_quantized(run.processes, **{task.result: trained})
    kept, sources = task.kept_in_float32(trained.model), {} if trained.again is None else {"": trained.again}
    weights = held(run.processes, trained.model, [trained.model], run.dtype, keep_float32=kept, sources=sources)
    return Learner(trained=trained, weights=weights, tokenizer=tokenizer)


def make_optimizer(task: Task[Any], weights: Weights, run: Frame) -> Optimizer:
    """Return a task's optimizer; `SupervisedRun.train` sets how many updates its schedule spans."""
    settings = optimizer_settings(task.settings.optimizer)
    group = ParameterGroup(name=task.result, parameters=weights.parameters, settings=settings)
    return Optimizer(weights, [group], 0, run.processes)


def check_length(model: PreTrainedModel, longest: int, source: Source) -> None:
    """Refuse sequences longer than the model's positions.

    Raises:
        ConfigError: with the longest sequence and the model's limit.
    """
    limit = context_length(model)
    if limit is not None and longest > limit:
        raise ConfigError(
            f"{source.name}: the longest sequence has {longest} tokens, but the model has {limit_of(model)} - "
            f"lower max_length ({source.fitting.max_length}) to {limit} or less"
        )


def _assembled(task: Task[T], config: SftConfig | RewardModelConfig, run: Frame) -> SupervisedRun[T]:
    """Assemble the run; the data is read before the model, so that a bad row fails at once."""
    tokenizer = load_tokenizer(
        resolve(config.model.path), trust_remote_code=config.model.trust_remote_code, **config.model.chat
    )
    sources = [Source.of(section) for section in (config.data, config.eval_data) if section is not None]
    parts = [prepared_items(task, source, tokenizer, run) for source in sources]
    items, held_out = parts[0], parts[1] if len(parts) > 1 else []
    run.check_overlap(items, held_out)
    learner = make_learner(task, run, trainable(config.model, task.load, tokenizer), tokenizer)
    for source, part in zip(sources, parts, strict=True):
        check_length(learner.trained.model, task.longest(part), source)
    return SupervisedRun(
        task=task, learner=learner, items=items, measure=partial(task.held_out, learner, held_out, run)
    )
