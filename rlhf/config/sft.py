"""The schema of `rlhf sft`, and the part of it that `SFTTrainer` takes from Python."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf.config.course import check_choice
from rlhf.config.shared import (
    Count,
    DataSection,
    FittingSection,
    ModelSection,
)
from rlhf.config.stage import StageConfig, StageSettings, check_one_length

EVALUATED = ("eval/loss", "eval/perplexity")
"""What an evaluation on held-out data measures."""


class SFTSettings(StageSettings):
    """How SFT learns: all settings except the sources of model and data."""

    data: FittingSection = Field(FittingSection(), description="what happens to demonstrations that do not fit")
    eval_data: FittingSection | None = Field(None, description="the same for held-out ones; null: as data")
    loss_on: Literal["completion", "assistant", "all"] = Field(
        "completion", description="tokens that enter the loss: completions, assistant turns, or everything"
    )
    append_eos: bool = Field(True, description="end each demonstration with EOS")
    epochs: Count | None = Field(None, description="passes over the data; set this or steps")
    steps: Count | None = Field(None, description="optimizer steps; set this or epochs")
    batch_size: Count = Field(32, description="demonstrations per optimizer step, over all processes")
    microbatch_tokens: Count = Field(2048, description="tokens in one forward and backward pass of one process")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        check_one_length(self.epochs, self.steps)
        return self


class SftConfig(SFTSettings, StageConfig):
    """Supervised finetuning (behaviour cloning)."""

    model: ModelSection
    data: DataSection = Field(description="demonstrations: text, prompt/completion or messages")
    eval_data: DataSection | None = Field(None, description="held-out demonstrations for loss and perplexity")
    eval_every: Count | None = Field(None, description="optimizer steps between evaluations; null evaluates at the end")

    @model_validator(mode="after")
    def _something_to_evaluate(self) -> Self:
        check_choice(self.best, self.eval_every, self.eval_data, key="eval_data.path", metrics=EVALUATED)
        return self

    @property
    def sources(self) -> list[DataSection]:
        """Every data set that is read."""
        return [section for section in (self.data, self.eval_data) if section is not None]
