"""Sections on the course of a run: which step is its best, what ends it early, what happens after a guard."""

from typing import Annotated

from pydantic import Field

from rlhf.config.section import Section
from rlhf.config.shared import Count, NonNegative

BelowOne = Annotated[float, Field(gt=0, le=1)]


class BestSection(Section):
    """The best step by a metric of the evaluations; its checkpoint is saved and kept beside the newest ones."""

    metric: str = Field(min_length=1, description="metric of an evaluated step, such as evaluation/scores or eval/loss")
    greater_is_better: bool | None = Field(
        None,
        description="whether higher is better; null: yes, unless the metric's name ends in loss, kl, perplexity "
        "or error",
    )
    load_at_end: bool = Field(False, description="the result has the weights of the best step, not of the last one")

    @property
    def is_greater_better(self) -> bool:
        """Whether higher is better, by the name of the metric where the file does not say."""
        lower = ("loss", "kl", "perplexity", "error")
        return not self.metric.endswith(lower) if self.greater_is_better is None else self.greater_is_better


def check_choice(
    best: BestSection | None, every: int | None, source: object, *, key: str, metrics: tuple[str, ...]
) -> None:
    """Refuse a best step that a stage's evaluations could not tell.

    Args:
        best: the section; None is well.
        every: steps between evaluations.
        source: what is held out, under the `key` of the configuration.
        key: names `source`.
        metrics: of the evaluation.

    Raises:
        ValueError: says what is missing.
    """
    if best is None:
        return
    prefix = metrics[0].partition("/")[0] + "/"
    if best.metric.startswith(prefix) and source is None:
        raise ValueError(f"best.metric: {best.metric} is measured on held-out data - set {key}")
    if best.metric.startswith("eval") and best.metric not in metrics:
        raise ValueError(f"best.metric: an evaluation has {', '.join(metrics)}, found {best.metric}")
    if every is None:
        raise ValueError("best: a run that is evaluated at its end alone has nothing to choose from - set eval_every")


class EarlyStoppingSection(Section):
    """A run ends early when its evaluations no longer improve."""

    patience: Count = Field(description="evaluations in a row without an improvement after which the run ends")
    min_delta: NonNegative = Field(0.0, description="an improvement must be larger than this to count")


class RollbackSection(Section):
    """After a guard the run goes back to its last good checkpoint and learns more slowly."""

    times: Count = Field(1, description="rollbacks before the run stops with status 6")
    lr_factor: BelowOne = Field(0.5, description="each rollback multiplies all learning rates by this")


class GuardsSection(Section):
    """What happens when a guard finds a number that is not finite, or a KL beyond kl_control.max_kl."""

    rollback: RollbackSection | None = Field(
        None, description="go back to the last good checkpoint, with smaller learning rates; null: stop with status 6"
    )
