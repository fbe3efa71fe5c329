"""The `reset:` section of `rlhf ppo`: episodes that begin inside a demonstration."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.section import Section
from rlhf.config.shared import Count, DataSection, Fraction, Positive

PositiveFraction = Annotated[float, Field(gt=0, le=1)]


class DataDemonstrations(DataSection):
    """Demonstrations from a file."""

    kind: Literal["data"] = Field(
        description="data: rows of prompt and completion, or preference rows, whose chosen response is used"
    )


class OwnBestDemonstrations(Section):
    """The best responses that the policy itself has given in this run; none before the first step."""

    kind: Literal["own_best"] = Field(description="own_best: the policy's own best responses so far")
    size: Count = Field(
        256,
        description="prompts to keep the best response of: those with the highest raw scores of the whole text, forced "
        "tokens included (own_best)",
    )


class GuideDemonstrations(Section):
    """Responses of another policy to the run's prompts, sampled once before the first step."""

    kind: Literal["guide"] = Field(description="guide: responses of another policy, sampled before the first step")
    path: str = Field(
        description="directory, `fetch:NAME` or hub name of the guide policy, which must have the policy's tokenizer"
    )
    num_demonstrations: Count = Field(
        256, description="responses to sample, one per prompt in the order of the data, round and round (guide)"
    )
    temperature: Positive = Field(1.0, description="divides the guide's logits (guide)")


Demonstrations = Annotated[
    DataDemonstrations | OwnBestDemonstrations | GuideDemonstrations, Field(discriminator="kind")
]


class UniformCut(Section):
    """Every prefix equally likely."""

    law: Literal["uniform"] = Field(description="uniform: every prefix of at least one token, equally likely")


class FixedCut(Section):
    """A fixed share of each demonstration."""

    law: Literal["fixed"] = Field(description="fixed: always the same share of the demonstration")
    share: PositiveFraction = Field(
        description="share of the longest prefix that is forced, at least one token (fixed)"
    )


class SentenceCut(Section):
    """After a sentence, each equally likely."""

    law: Literal["sentence"] = Field(
        description="sentence: after one of the demonstration's sentences; at its prompt if it has only one"
    )


class AnnealedCut(Section):
    """From long prefixes to short ones while the run goes on."""

    law: Literal["annealed"] = Field(description="annealed: long prefixes at first, then shorter and shorter ones")
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
    """Episodes that begin inside a demonstration: its tokens are part of the state, and the policy continues it."""

    fraction: Fraction = Field(
        description="probability that an episode begins inside a demonstration and takes its prompt; 0 is plain PPO"
    )
    demonstrations: Demonstrations = Field(description="where the demonstrations come from")
    cut: Cut = Field(UniformCut(law="uniform"), description="how much of a demonstration is forced")
