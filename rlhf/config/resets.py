"""The `reset:` section of `rlhf ppo`: episodes that begin inside a demonstration."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.shared import Count, DataSection, Fraction, Positive, Section

PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class DataDemonstrations(DataSection):
    """Demonstrations from a file."""

    kind: Literal["data"] = Field(
        description="data: rows of prompt and completion, or preference rows, of which the chosen response is taken"
    )


class OwnBestDemonstrations(Section):
    """The best responses that the policy itself has given in this run; none before the first step."""

    kind: Literal["own_best"] = Field(description="own_best: the policy's own best responses so far")
    size: Count = Field(
        256,
        description="prompts whose best response is kept, those with the highest raw scores of the whole text, forced "
        "tokens included (own_best)",
    )


class GuideDemonstrations(Section):
    """Responses of another policy to the run's prompts, sampled once before the first step."""

    kind: Literal["guide"] = Field(description="guide: responses of another policy, sampled before the first step")
    path: str = Field(
        description="directory, `fetch:NAME` or hub name of the guide policy, which has the policy's tokenizer"
    )
    num_demonstrations: Count = Field(
        256, description="responses, one a prompt in the order of the data, over and over (guide)"
    )
    temperature: Positive = Field(1.0, description="logits are divided by it (guide)")


Demonstrations = Annotated[
    DataDemonstrations | OwnBestDemonstrations | GuideDemonstrations, Field(discriminator="kind")
]


class UniformCut(Section):
    """Every prefix equally often."""

    law: Literal["uniform"] = Field(description="uniform: every prefix from one token on, equally often")


class FixedCut(Section):
    """A fixed share of each demonstration."""

    law: Literal["fixed"] = Field(description="fixed: always the same share of the demonstration")
    share: PositiveFraction = Field(
        description="share of the longest prefix that is forced, at least one token (fixed)"
    )


class SentenceCut(Section):
    """After a sentence, each equally often."""

    law: Literal["sentence"] = Field(
        description="sentence: after one of the demonstration's sentences; where it has but one, at its prompt"
    )


class AnnealedCut(Section):
    """From long prefixes to short ones while the run goes on."""

    law: Literal["annealed"] = Field(description="annealed: long prefixes at first, ever shorter ones later")
    longest: Fraction = Field(
        1.0, description="share of the longest prefix that is forced at the first step (annealed)"
    )
    shortest: Fraction = Field(
        0.0, description="the same from `until` on; 0 begins at the demonstration's prompt (annealed)"
    )
    until: PositiveFraction = Field(
        0.5, description="share of the run's steps over which prefixes get shorter (annealed)"
    )

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest ({self.shortest:g}) must be at most longest ({self.longest:g})")
        return self


Cut = Annotated[UniformCut | FixedCut | SentenceCut | AnnealedCut, Field(discriminator="law")]


class ResetSection(Section):
    """Episodes that begin inside a demonstration: its tokens are part of the state, and the policy goes on."""

    fraction: Fraction = Field(
        description="probability that an episode begins inside a demonstration, at that one's prompt; 0 is plain PPO"
    )
    demonstrations: Demonstrations = Field(description="what is begun from")
    cut: Cut = Field(UniformCut(law="uniform"), description="how much of a demonstration is forced")
