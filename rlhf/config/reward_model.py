"""The schema of `rlhf reward-model`."""

from typing import Self

from pydantic import Field, model_validator

from rlhf.config.shared import Count, DataSection, Fraction, NonNegative, StageConfig


class RewardModelConfig(StageConfig):
    """A scalar model trained on preference pairs."""

    data: DataSection = Field(description="pairs: chosen and rejected, with or without prompt, optional margin")
    eval_data: DataSection | None = Field(None, description="held-out pairs for accuracy, calibration and margin")
    demonstrations: DataSection | None = Field(
        None, description="demonstrations on which the mean score is set to 0 after training"
    )
    append_eos: bool = Field(True, description="end each text with EOS; the score is read at the last token")
    unfinished_fraction: Fraction = Field(
        0.0, description="share of the pairs in which the chosen text, cut short, takes the place of the rejected one"
    )
    centring_coef: NonNegative = Field(0.0, description="weight of the squared sum of a pair's two scores")
    epochs: Count | None = Field(None, description="passes over the data; set this or steps")
    steps: Count | None = Field(None, description="optimizer steps; set this or epochs")
    batch_size: Count = Field(32, description="pairs an optimizer step, over all processes")
    microbatch_tokens: Count = Field(2048, description="padded tokens in one forward and backward pass of one process")
    eval_every: Count | None = Field(None, description="optimizer steps between evaluations; null evaluates at the end")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set exactly one of epochs and steps")
        return self
