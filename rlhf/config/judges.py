"""The judges of `rlhf evaluate`: named rewards, and models that compare two responses."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.rewards import Name, RewardOptions, RewardSection, ServerKeys
from rlhf.config.section import Section
from rlhf.config.shared import Count

GOLD, EMBEDDING, PROXY = "gold", "embedding", "reward"
"""The judges of `gold`, of `gold.embeddings` and of `reward_model`; no other judge can have these names."""
PLACES = ("{prompt}", "{first}", "{second}")
"""What a question to a pairwise judge must hold."""
QUESTION = """Two writers answered the same request. Decide whose answer serves the person who asked better: is it
right, does it do what was asked, is it clear? An answer is not better for being longer, and which one comes first means
nothing.

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

Reply with one word and nothing else: A, B, or tie."""
"""The default question."""
_WITHOUT_MEANING = ("name", "normalise", "gate")
"""Options of a reward that say nothing where each judge stands alone."""


class OpenAIJudgeSection(ServerKeys):
    """A language model behind an OpenAI-compatible endpoint compares two responses; it is asked in both orders."""

    kind: Literal["openai"] = Field(description="openai: a chat model compares two responses, in both orders")
    model: str = Field(description="name of the model, as the endpoint calls it")
    question: str = Field(QUESTION, description="what it is asked, with {prompt}, {first} and {second}")
    max_tokens: Count = Field(16, description="longest answer of the judge, in tokens")
    parallel: Count = Field(4, description="questions asked at the same time")
    pairs: Literal["all", "first"] = Field(
        "all", description="compare every pair of policies, or only each policy with the first"
    )
    cache: bool = Field(True, description="keep its answers on the disk, so that no question is asked twice")

    @model_validator(mode="after")
    def _places(self) -> Self:
        missing = [place for place in PLACES if place not in self.question]
        if missing:
            raise ValueError(f"question lacks {', '.join(missing)} - the judge must see the prompt and both responses")
        return self


JudgeSection = Annotated[RewardSection | OpenAIJudgeSection, Field(discriminator="kind")]
Judges = dict[Name, JudgeSection]


class BestOfSection(Section):
    """A baseline without training: the best of n answers of a policy, by a judge that scores single responses."""

    n: int = Field(4, ge=2, description="answers to choose from")
    judge: str = Field("reward_model", description="who chooses: `reward_model`, `gold`, `embedding` or another judge")
    policy: str = Field(description="whose answers")

    @property
    def chooser(self) -> str:
        """The name of the judge in the results."""
        return PROXY if self.judge == "reward_model" else self.judge


def check_judges(judges: Mapping[str, JudgeSection]) -> None:
    """Refuse names that are taken, and options of rewards that have no meaning for a judge.

    Raises:
        ValueError: says which judge and what to do.
    """
    for name, section in judges.items():
        if name in (GOLD, EMBEDDING, PROXY, "reward_model"):
            raise ValueError(
                f"judges: the name {name} is taken by the short forms `gold` and `reward_model` - rename it"
            )
        refuse_meaningless(f"judges.{name}", section)


def refuse_meaningless(where: str, section: Section) -> None:
    """Refuse the options of a reward that mean nothing for a judge.

    Args:
        where: the key of the judge.
        section: of the judge.

    Raises:
        ValueError: says which.
    """
    if not isinstance(section, RewardOptions):
        return
    given = [key for key in _WITHOUT_MEANING if getattr(section, key) != RewardOptions.model_fields[key].default]
    if given:
        raise ValueError(f"{where}: {', '.join(given)} means nothing for a judge, which stands alone - leave it out")
