"""The schemas of `rlhf evaluate` and `rlhf generate`, and the parts of them that Python takes."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rlhf.config.engine import AnsweringSection, NativeEngineSection
from rlhf.config.judges import BestOfSection, Judges, OpenAIJudgeSection, check_judges
from rlhf.config.rewards import RewardSection
from rlhf.config.section import Section
from rlhf.config.shared import (
    CUDA_GRAPHS,
    ChatSection,
    Count,
    CudaGraphs,
    DataSection,
    FittingSection,
    InRunDirectory,
    NonNegative,
    Precision,
)

FILE_NAME = re.compile(r"\w[\w.\-]*")
"""A valid name of a policy."""
NO_LIMIT = 10**9
"""A max_length that drops no prompt; only the model's positions limit it."""
ENGINE = "what draws the answers; a vllm server gets each policy's weights by path"


class DecodingSection(Section):
    """How the policies answer."""

    max_new_tokens: Count = Field(48, description="longest response in tokens")
    temperature: NonNegative = Field(1.0, description="0 decodes greedily; the KL is then measured at temperature 1")
    stop_strings: list[str] = Field([], description="a response ends after any of these")
    batch_rows: Count = Field(64, description="prompts decoded together")
    cuda_graphs: CudaGraphs = Field("auto", description=CUDA_GRAPHS)
    filters: Literal["none", "model"] = Field(
        "none",
        description="model: temperature, top_k, top_p, min_p and repetition_penalty as the model's "
        "generation_config.json sets them; `decoding: model` is short for it",
    )
    top_k: int = Field(0, ge=0, description="draw from that many of the most probable tokens; 0: from all")
    top_p: float = Field(
        1.0, gt=0, le=1, description="draw from the fewest tokens that together have this probability; 1: from all"
    )

    @property
    def told(self) -> str | None:
        """How the answers differ from draws from the policy's whole distribution, for the user; None if they do not."""
        if self.filters == "model":
            return "answers with its own settings"
        cuts = {"top_k": self.top_k, "top_p": self.top_p}
        own = [f"{name} {cuts[name]:g}" for name, none in (("top_k", 0), ("top_p", 1.0)) if cuts[name] != none]
        return f"answers with {' and '.join(own)}" if own else None

    @model_validator(mode="after")
    def _whose_filters(self) -> Self:
        if self.filters == "model" and (self.top_k, self.top_p) != (0, 1.0):
            raise ValueError(
                "filters: model takes top_k and top_p from the model - leave them out, or set filters: none"
            )
        return self


Decoding = Annotated[
    DecodingSection,
    BeforeValidator(
        lambda value: {"filters": "model"} if value == "model" else value,
        json_schema_input_type=DecodingSection | Literal["model"],
    ),
]


class EmbeddingsSection(Section):
    """A second gold judge, of another kind: a logistic regression on the embeddings of a sentence encoder."""

    model: str = Field(description="sentence encoder: directory, `fetch:NAME` or hub name")
    train_limit: Count | None = Field(
        6000, description="rows to take from the front of gold.train; null takes all. Embedding them is what takes time"
    )
    heldout_limit: Count | None = Field(1500, description="rows to take from the front of gold.heldout")


Embeddings = Annotated[
    EmbeddingsSection,
    BeforeValidator(
        lambda value: {"model": value} if isinstance(value, str) else value,
        json_schema_input_type=EmbeddingsSection | str,
    ),
]


class GoldSection(Section):
    """The gold judge: a classifier on human labels that no training stage has seen."""

    train: str = Field(
        description="rows with text and label (0 or 1) that the judge is fitted on; path or `fetch:NAME/file`"
    )
    heldout: str = Field(description="rows of the same kind for its scale, thresholds and accuracy")
    limit: Count | None = Field(None, description="rows to take from the front of each file")
    fluency_penalty: NonNegative = Field(
        1.0, description="subtracted when perplexity is above the 95th percentile of human text"
    )
    repetition_penalty: NonNegative = Field(
        1.0, description="subtracted when more bigrams repeat than in 95 % of human texts"
    )
    embeddings: Embeddings | None = Field(
        None,
        description="a second judge on the same rows, which reads a sentence encoder's embeddings and not words; the "
        "name of the encoder, such as `fetch:minilm-l6-v2`, is short for a section",
    )

    @property
    def inputs(self) -> list[str]:
        """The files and the model that determine the judges' verdicts."""
        return [self.train, self.heldout, *([self.embeddings.model] if self.embeddings else [])]


class Seeded(Section):
    """What draws random numbers."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler and of the bootstrap")


class EvaluateSettings(ChatSection, Seeded):
    """How policies are compared: all settings except the sources of policies, prompts and reward model."""

    prompts: FittingSection = Field(FittingSection(), description="what happens to prompts that do not fit")
    gold: GoldSection | None = Field(None, description="the gold judge; null leaves it out")
    judges: Judges = Field(
        {},
        description="more judges by name: a reward as in `rlhf ppo`, or `kind: openai`, which compares two responses",
    )
    samples_per_prompt: Count = Field(1, description="responses of each policy to each prompt")
    best_of: BestOfSection | None = Field(None, description="one more column: the best of n answers of a policy")
    decoding: Decoding = DecodingSection()
    engine: AnsweringSection = Field(NativeEngineSection(), description=ENGINE)
    precision: Precision = Field("auto", description="compute type")
    microbatch_tokens: Count = Field(2048, description="tokens in one forward pass")
    fluency_model: str | None = Field(
        None,
        description="language model that no stage has trained, such as `fetch:smollm2-135m-instruct`: the perplexity "
        "of the responses under it, beside human text's, says how fluent they are",
    )
    human_column: str = Field(
        "human", description="column of the prompts with a human's text; without it, texts of gold.heldout are taken"
    )
    num_side_by_side: Count = Field(6, description="samples printed side by side, drawn by the seed")

    @model_validator(mode="after")
    def _judges(self) -> Self:
        check_judges(self.judges)
        return self

    @property
    def rewards(self) -> dict[str, RewardSection]:
        """The judges that score single responses, by name."""
        return {name: each for name, each in self.judges.items() if not isinstance(each, OpenAIJudgeSection)}

    @property
    def judge_inputs(self) -> list[str]:
        """The files and models that determine the verdicts of the judges with a section of their own."""
        return [*(self.gold.inputs if self.gold else []), *([self.fluency_model] if self.fluency_model else [])]


class EvaluateSources(Seeded, InRunDirectory):
    """What is compared, by name. In a file its keys come before those of `EvaluateSettings`."""

    policies: Annotated[dict[str, str], Field(min_length=1)] = Field(
        description="name: directory of a model or of a checkpoint of PPO, `fetch:NAME` or hub name; win rates are "
        "against the first, and responses go to NAME.jsonl"
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
    """Refuse policy names that are not valid file names.

    Raises:
        ValueError: with all of them.
    """
    bad = [name for name in names if not FILE_NAME.fullmatch(name)]
    if bad:
        raise ValueError(
            f"policies: a name is also a file name, so it may have only letters, digits, '_', '-' and '.', "
            f"found {', '.join(map(repr, bad))}"
        )


class GenerateConfig(ChatSection):
    """Answer prompts from a file or standard input, as JSONL."""

    model: str = Field(description="model directory, `fetch:NAME` or hub name")
    prompts: DataSection | None = Field(None, description="prompts; null reads one prompt per line from standard input")
    output: str | None = Field(None, description="JSONL file; null prints to standard output")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler")
    samples_per_prompt: Count = Field(1, description="responses for each prompt")
    decoding: Decoding = DecodingSection()
    engine: AnsweringSection = Field(NativeEngineSection(), description=ENGINE)
    precision: Precision = Field("auto", description="compute type")


class GenerateSettings(ChatSection, DecodingSection):
    """Keyword arguments of `rlhf.generate`. By default no prompt is dropped: one that does not fit is an error."""

    samples_per_prompt: Count = Field(1, description="responses for each prompt")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampler")
    engine: AnsweringSection = Field(NativeEngineSection(), description=ENGINE)
    precision: Precision = Field("auto", description="compute type")
    fitting: FittingSection = Field(
        FittingSection(max_length=NO_LIMIT, over_long="error"), description="what happens to prompts that do not fit"
    )

    @property
    def decoding(self) -> DecodingSection:
        """How the policy answers."""
        return DecodingSection(**self.model_dump(include=set(DecodingSection.model_fields)))
