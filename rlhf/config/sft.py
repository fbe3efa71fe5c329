"""The schema of `rlhf sft`."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf.config.shared import Count, DataSection, StageConfig


class SftConfig(StageConfig):
    """Supervised finetuning (behaviour cloning)."""

    data: DataSection = Field(description="demonstrations: text, prompt/completion or messages")
    eval_data: DataSection | None = Field(None, description="held-out demonstrations for loss and perplexity")
    loss_on: Literal["completion", "assistant", "all"] = Field(
        "completion", description="tokens that enter the loss: completions, assistant turns, or everything"
    )
    append_eos: bool = Field(True, description="end each demonstration with EOS")
    epochs: Count | None = Field(None, description="passes over the data; set this or steps")
    steps: Count | None = Field(None, description="optimizer steps; set this or epochs")
    batch_size: Count = Field(32, description="demonstrations an optimizer step, over all processes")
    microbatch_tokens: Count = Field(2048, description="padded tokens in one forward and backward pass of one process")
    eval_every: Count | None = Field(None, description="optimizer steps between evaluations; null evaluates at the end")

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("set exactly one of epochs and steps")
        return self
