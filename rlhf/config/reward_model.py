"""The schema of `rlhf reward-model`, and the part of it that `RewardTrainer` takes from Python."""

from typing import Self

from pydantic import Field, model_validator

from rlhf.config.course import check_choice
from rlhf.config.shared import (
    Count,
    DataSection,
    FittingSection,
    Fraction,
    ModelSection,
    NonNegative,
    PairFittingSection,
    PairSection,
    TuningSection,
)
from rlhf.config.stage import StageConfig, StageSettings, check_one_length

EVALUATED = ("eval/accuracy", "eval/loss", "eval/margin", "eval/calibration_error")
"""What an evaluation on held-out data measures."""


class DepthSection(TuningSection):
    """Which blocks a reward model has, and which of its weights are trained."""

    num_layers: Count | None = Field(
        None, description="keep only this many of the first blocks: a smaller and faster reward model; null keeps all"
    )


class DepthModelSection(DepthSection, ModelSection):
    """Which model is loaded, how much of it is kept, and which weights are trained."""


class RewardSettings(StageSettings):
    """How a reward model learns: all settings except the sources of model and data."""

    model: DepthSection = DepthSection()
    data: PairFittingSection = Field(PairFittingSection(), description="what happens to pairs that do not fit")
    eval_data: PairFittingSection | None = Field(None, description="the same for held-out ones; null: as data")
    demonstrations: FittingSection | None = Field(None, description="the same for demonstrations; null: as data")
    append_eos: bool = Field(True, description="end each text with EOS; the score is read at the last token")
    unfinished_fraction: Fraction = Field(
        0.0, description="share of the pairs in which the chosen text, cut short, replaces the rejected one"
    )
    centring_coef: NonNegative = Field(0.0, description="weight of the squared sum of a pair's two scores")
    epochs: Count | None = Field(None, description="passes over the data; set this or steps")
    steps: Count | None = Field(None, description="optimizer steps; set this or epochs")
    batch_size: Count = Field(32, description="pairs per optimizer step, over all processes")
    microbatch_tokens: Count = Field(2048, description="tokens in one forward and backward pass of one process")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        check_one_length(self.epochs, self.steps)
        return self

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.model.lora == "continue":
            raise ValueError("model.lora: a reward model has no adapter to continue - use {r: 16} for a new one")
        return self


class RewardModelConfig(RewardSettings, StageConfig):
    """A scalar model trained on preference pairs."""

    model: DepthModelSection
    data: PairSection = Field(description="pairs: chosen and rejected, with or without prompt, optional margin")
    eval_data: PairSection | None = Field(None, description="held-out pairs for accuracy, calibration and margin")
    demonstrations: DataSection | None = Field(
        None, description="demonstrations whose mean score is set to 0 after training"
    )
    eval_every: Count | None = Field(None, description="optimizer steps between evaluations; null evaluates at the end")

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Self:
        check_choice(self.best, self.eval_every, self.eval_data, key="eval_data.path", metrics=EVALUATED)
        return self

    @property
    def sources(self) -> list[DataSection]:
        """Every data set that is read."""
        return [section for section in (self.data, self.eval_data, self.demonstrations) if section is not None]
