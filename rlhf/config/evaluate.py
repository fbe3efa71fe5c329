"""The schemas of `rlhf evaluate` and `rlhf generate`, and the parts of them that Python takes."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rlhf.config.shared import (
    ChatSection,
    Count,
    DataSection,
    FittingSection,
    InRunDirectory,
    NonNegative,
    Precision,
    Section,
)

FILE_NAME = re.compile(r"\w[\w.\-]*")
"""What a policy may be called."""
NO_LIMIT = 10**9
"""Tokens of a prompt that is never dropped; the model's positions are what limits it."""


class DecodingSection(Section):
    """How the policies answer."""

    max_new_tokens: Count = Field(48, description="longest response in tokens")
    temperature: NonNegative = Field(1.0, description="0 takes the likeliest token, and the KL is then that at 1")
    stop_strings: list[str] = Field([], description="a response ends when one of them has appeared")
    batch_rows: Count = Field(64, description="prompts decoded together")
    filters: Literal["none", "model"] = Field(
        "none",
        description="model: temperature, top_k, top_p, min_p and repetition_penalty as the model's "
        "generation_config.json sets them; `decoding: model` is short for it",
    )


Decoding = Annotated[
    DecodingSection,
    BeforeValidator(
        lambda value: {"filters": "model"} if value == "model" else value,
        json_schema_input_type=DecodingSection | Literal["model"],
    ),
]


class GoldSection(Section):
    """The gold judge: a classifier on human labels that no training stage has seen."""

    train: str = Field(
        description="rows text, label (0 or 1) from which the judge is fitted; path or `fetch:NAME/file`"
    )
    heldout: str = Field(description="rows of the same kind for its scale, thresholds and accuracy")
    limit: Count | None = Field(None, description="rows of each of the two to take from the front")
    fluency_penalty: NonNegative = Field(
        1.0, description="subtracted when perplexity is above the 95th percentile of human text"
    )
    repetition_penalty: NonNegative = Field(
        1.0, description="subtracted when more bigrams repeat than in 95 % of human texts"
    )


class Seeded(Section):
    """What draws random numbers."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler and of the bootstrap")


class EvaluateSettings(ChatSection, Seeded):
    """How policies are compared: everything but where they, the prompts and the reward model come from."""

    prompts: FittingSection = Field(FittingSection(), description="what happens to prompts that do not fit")
    gold: GoldSection | None = Field(None, description="the gold judge, when there is one")
    decoding: Decoding = DecodingSection()
    precision: Precision = Field("auto", description="compute type")
    microbatch_tokens: Count = Field(2048, description="padded tokens in one forward pass")
    num_side_by_side: Count = Field(8, description="samples printed side by side in the summary")


class EvaluateSources(Seeded, InRunDirectory):
    """What is compared, by name. Its keys stand before those of `EvaluateSettings` in a file."""

    policies: Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="name: model directory; win rates are against the first, and responses go to NAME.jsonl"
    )
    reference: str | None = Field(None, description="model to which the KL is measured; null takes the first policy")
    prompts: DataSection = Field(description="held-out prompts")
    reward_model: str | None = Field(None, description="directory of the reward model (the proxy)")

    @model_validator(mode="after")
    def _names(self) -> Self:
        check_names(self.policies)
        return self


class EvaluateConfig(EvaluateSettings, EvaluateSources):
    """Compare policies on the same held-out prompts."""

    prompts: DataSection = Field(description="held-out prompts")


def check_names(names: Iterable[str]) -> None:
    """Refuse names of policies that no file can have.

    Raises:
        ValueError: with all of them.
    """
    bad = [name for name in names if not FILE_NAME.fullmatch(name)]
    if bad:
        raise ValueError(
            f"policies: a name is also that of a file, so it is made of letters, digits, '_', '-' and '.', "
            f"found {', '.join(map(repr, bad))}"
        )


class GenerateConfig(ChatSection):
    """Answer prompts from a file or standard input, as JSONL."""

    model: str = Field(description="model directory, `fetch:NAME` or hub name")
    prompts: DataSection | None = Field(None, description="prompts; null reads one prompt a line from standard input")
    output: str | None = Field(None, description="JSONL file; null prints to standard output")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler")
    samples_per_prompt: Count = Field(1, description="responses for each prompt")
    decoding: Decoding = DecodingSection()
    precision: Precision = Field("auto", description="compute type")


class GenerateSettings(ChatSection, DecodingSection):
    """What `rlhf.generate` takes by keyword. Prompts are never dropped in silence: a list is answered whole."""

    samples_per_prompt: Count = Field(1, description="responses for each prompt")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler")
    precision: Precision = Field("auto", description="compute type")
    fitting: FittingSection = Field(
        FittingSection(max_length=NO_LIMIT, over_long="error"), description="what happens to prompts that do not fit"
    )

    @property
    def decoding(self) -> DecodingSection:
        """How the policy answers."""
        return DecodingSection(**self.model_dump(include=set(DecodingSection.model_fields)))
