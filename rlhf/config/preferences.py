"""The schemas of `rlhf sample-pairs`, `rlhf label` and `rlhf score`: preferences from the policy itself."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from rlhf.config.evaluate import Decoding, DecodingSection, Embeddings, GenerateConfig, GoldSection
from rlhf.config.judges import OpenAIJudgeSection, refuse_meaningless
from rlhf.config.rewards import RewardSection
from rlhf.config.shared import ChatSection, Count, DataSource, NonNegative, Precision


class SamplePairsConfig(GenerateConfig):
    """Answer every prompt several times, and put the answers into pairs for `rlhf label`."""

    output: str = Field(description="JSONL file with a pair a line: prompt, first, second, ended, tokens")
    samples_per_prompt: int = Field(4, ge=2, description="answers to each prompt")
    pairs_per_prompt: Count | None = Field(
        None, description="most pairs of a prompt's answers, drawn by the seed; null keeps all that differ"
    )
    decoding: Decoding = DecodingSection()

    @model_validator(mode="after")
    def _answers_that_differ(self) -> Self:
        if self.decoding.temperature == 0 and self.decoding.filters == "none":
            raise ValueError(
                "decoding.temperature: at 0 all answers to a prompt are equal, which leaves no pair - set it above 0"
            )
        return self


class GoldJudgeSection(GoldSection):
    """The gold judge of `rlhf evaluate`."""

    kind: Literal["gold"] = Field(description="gold: a classifier on human labels that no training stage has seen")
    embeddings: Embeddings | None = Field(
        None,
        description="judge by a sentence encoder's embeddings in place of words; the name of the encoder, such as "
        "`fetch:minilm-l6-v2`, is short for a section",
    )


ScoringSection = RewardSection | GoldJudgeSection
"""A judge that gives single answers a number."""


def _long_form(value: Any) -> Any:
    """A path alone is short for a reward model."""
    return {"kind": "model", "path": value} if isinstance(value, str) else value


AnyScoringJudge = Annotated[
    ScoringSection,
    Discriminator("kind"),
    BeforeValidator(_long_form, json_schema_input_type=Annotated[ScoringSection, Discriminator("kind")] | str),
]
AnyJudge = Annotated[
    ScoringSection | OpenAIJudgeSection,
    Discriminator("kind"),
    BeforeValidator(
        _long_form, json_schema_input_type=Annotated[ScoringSection | OpenAIJudgeSection, Discriminator("kind")] | str
    ),
]


class TextsSection(DataSource):
    """Where prompts and answers come from."""

    column_map: dict[str, str] = Field({}, description="our column name: name in the data")


class JudgedConfig(ChatSection):
    """One judge reads the answers of a file."""

    tokenizer: str | None = Field(
        None,
        description="model that wrote the answers, whose tokenizer a reward reads them with: directory, `fetch:NAME` "
        "or hub name; null takes the reward model's own",
    )
    precision: Precision = Field("auto", description="compute type")
    batch_rows: Count = Field(256, description="answers that a reward reads in one call")


class LabelConfig(JudgedConfig):
    """A judge says which answer of each pair is better, and the pairs become preferences."""

    judge: AnyJudge = Field(description="who decides; a path alone is short for {kind: model, path: ...}")
    pairs: TextsSection = Field(
        description="rows of prompt, first and second, as `rlhf sample-pairs` writes them, or preferences to label anew"
    )
    output: str = Field(description="JSONL file of preferences, for `rlhf reward-model`")
    temperature: NonNegative = Field(
        0.0,
        description="0: the higher score wins; above 0 the first wins with probability "
        "sigmoid((its score - the other's) / temperature), as in the Bradley-Terry model",
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the noise")

    @model_validator(mode="after")
    def _meaning(self) -> Self:
        refuse_meaningless("judge", self.judge)
        if isinstance(self.judge, OpenAIJudgeSection) and self.temperature > 0:
            raise ValueError("temperature: a judge of kind openai gives no scores to add noise to - set it to 0")
        if isinstance(self.judge, OpenAIJudgeSection) and self.judge.pairs != "all":
            raise ValueError("judge.pairs: every pair of the file is judged - leave it out")
        return self


class ScoreConfig(JudgedConfig):
    """A judge scores every answer of a file, and all else in the file stays as it is."""

    judge: AnyScoringJudge = Field(description="who scores; a path alone is short for {kind: model, path: ...}")
    data: TextsSection = Field(description="rows of prompt and completion (or response, as `rlhf generate` writes)")
    output: str = Field(description="JSONL file: the rows with one more column")
    column: str = Field("score", min_length=1, description="name of the new column")

    @model_validator(mode="after")
    def _meaning(self) -> Self:
        refuse_meaningless("judge", self.judge)
        return self
