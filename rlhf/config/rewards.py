"""The rewards of `rlhf ppo`: a list of sections, told apart by their `kind`."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.section import Section
from rlhf.config.shared import Count, NonNegative, Positive

Policy = Literal["stop", "drop_episode", "neutral"]
Activation = Literal["none", "softmax", "log_softmax", "sigmoid", "log_sigmoid"]
Unit = Literal["tokens", "words", "characters"]
DEADLINE = "seconds that one call may take, for a server including all attempts and waits; null waits for ever"
EARLY = "in PPO: ask about each response when it is over, while others are drawn; it must not look at the others"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


class GateSection(Section):
    """A reward counts only where another reward exceeds a threshold."""

    reward: str = Field(description="name of the other reward")
    above: float = Field(0.0, description="threshold for the other reward's number, before any scaling")


class RewardOptions(Section):
    """The keys that every reward has."""

    name: Name | None = Field(
        None,
        description="name in logs and gates; null takes the function's name, or the kind, numbered if two are equal",
    )
    weight: float = Field(1.0, description="factor of this reward in the score")
    normalise: Literal["none", "running", "batch"] = Field(
        "none",
        description="divide by the standard deviation of all its scores so far, or scale each batch to mean 0 and "
        "standard deviation 1",
    )
    clip: Positive | None = Field(None, description="its scores are clipped to [-clip, clip], after normalisation")
    gate: GateSection | None = Field(None, description="count only where another reward exceeds a threshold")
    cache: int = Field(0, ge=0, description="scores to cache for equal episodes; 0 asks every time")
    on_error: Policy = Field(
        "stop",
        description="when it fails: stop the run, drop the episodes from the update, or give them its mean score",
    )
    on_nan: Policy = Field("stop", description="the same for a score that is NaN or infinite")
    deadline: Positive | None = Field(None, description=DEADLINE)


class RuleSection(RewardOptions):
    """A reward that is built from its keys alone: `made_by` is called with them."""

    made_by: ClassVar[str]
    """`module:name` of its class, imported when a run is assembled: reading a configuration needs no torch."""

    @property
    def own_keys(self) -> dict[str, Any]:
        """The keys that no other reward has."""
        shared = {"kind", *RewardOptions.model_fields}
        return {name: value for name, value in self if name not in shared}


class FunctionRewardSection(RewardOptions):
    """A Python function with TRL's signature: fn(prompts, completions, **columns) -> list[float | None]."""

    kind: Literal["function"] = Field(description="function: a Python function, sync or async")
    path: str = Field(description="`path/to/file.py:name` or `package.module:name`; this runs the code in that file")
    deadline: Positive | None = Field(60.0, description=DEADLINE)
    early: bool = Field(False, description=EARLY)


class ClassifierSection(Section):
    """A sequence classifier, and which of its numbers is the score."""

    path: str = Field(description="directory, `fetch:NAME` or hub name of the reward model")
    label: int | str | None = Field(
        None, description="the label to use, by name or index; null if the classifier has only one"
    )
    activation: Activation = Field("none", description="applied to the logits before picking the label")


class ModelRewardSection(ClassifierSection, RewardOptions):
    """A sequence classifier: as `rlhf reward-model` saves it, or any other."""

    kind: Literal["model"] = Field(description="model: a reward model, or another sequence classifier")


class EnsembleRewardSection(RewardOptions):
    """Several reward models as one."""

    kind: Literal["ensemble"] = Field(description="ensemble: several reward models as one")
    models: list[ClassifierSection] = Field(min_length=2, description="the members")
    combine: Literal["mean", "min", "mean_minus_std"] = Field(
        "mean", description="their mean, their minimum, or the mean minus k standard deviations"
    )
    k: NonNegative = Field(1.0, description="standard deviations that mean_minus_std subtracts")


class ServerKeys(Section):
    """How a server is asked."""

    instead_of_secrets = (
        "put it into an environment variable and name that in token_env: it is sent as Authorization: Bearer"
    )
    url: str = Field(description="http or https address to post requests to")
    timeout: Positive = Field(20.0, description="seconds for one attempt, from the connection to the last byte")
    deadline: Positive | None = Field(60.0, description=DEADLINE)
    retries: int = Field(3, ge=0, description="attempts after the first, on connection errors, 429 and 5xx")
    max_response_bytes: Count = Field(10_000_000, description="size of the largest answer to read, in bytes")
    token_env: str | None = Field(None, description="environment variable with a token, sent as Authorization: Bearer")

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.deadline is None:
            raise ValueError("deadline must be a number for a server: a connection may stay silent for ever")
        return self


class HttpRewardSection(ServerKeys, RewardOptions):
    """A server that takes OpenRLHF's requests, such as `rlhf serve-reward`."""

    kind: Literal["http"] = Field(description="http: a server that answers OpenRLHF's requests")
    label_column: str | None = Field(None, description="column of the data to send as labels; null sends empty ones")
    early: bool = Field(False, description=EARLY)


class LengthRewardSection(RuleSection):
    """0 for a response of allowed length, else minus the distance to the allowed range."""

    made_by = "rlhf.rewards.kinds.rules:LengthReward"
    kind: Literal["length"] = Field(description="length: minus the units by which it is too short or too long")
    unit: Unit = Field("tokens", description="what is counted; the EOS is a token")
    at_least: int = Field(0, ge=0, description="shortest allowed response, in units")
    at_most: int | None = Field(None, ge=0, description="longest allowed response, in units; null allows any")

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.at_least == 0 and self.at_most is None:
            raise ValueError("a length reward needs at_least above 0 or at_most, else every response scores 0")
        if self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least ({self.at_least}) must not be above at_most ({self.at_most})")
        return self


class RepetitionRewardSection(RuleSection):
    """Minus the share of a response's n-grams that occurred in it before."""

    made_by = "rlhf.rewards.kinds.rules:RepetitionReward"
    kind: Literal["repetition"] = Field(description="repetition: minus the share of repeated n-grams")
    unit: Unit = Field("words", description="what n-grams are made of")
    ngram: Count = Field(3, description="n, in units")


class RegexRewardSection(RuleSection):
    """One score for responses in which a pattern is found, another for the rest."""

    made_by = "rlhf.rewards.kinds.rules:RegexReward"
    kind: Literal["regex"] = Field(description="regex: whether a pattern is found in the response")
    pattern: str = Field(description="regular expression; `(?i)` in front ignores case")
    found: float = Field(1.0, description="score of a response that contains it")
    missing: float = Field(0.0, description="score of the others")


class LexiconRewardSection(RuleSection):
    """VADER's compound sentiment from -1 to 1; needs the extra `lexicon`."""

    made_by = "rlhf.rewards.kinds.lexicon:LexiconReward"
    kind: Literal["lexicon"] = Field(description="lexicon: VADER's sentiment, from -1 to 1")


RewardSection = Annotated[
    FunctionRewardSection
    | ModelRewardSection
    | EnsembleRewardSection
    | HttpRewardSection
    | LengthRewardSection
    | RepetitionRewardSection
    | RegexRewardSection
    | LexiconRewardSection,
    Field(discriminator="kind"),
]


def reward_names(sections: Sequence[RewardSection]) -> list[str]:
    """Return the name of each reward: the given one or its default, numbered if several are equal."""
    given = {section.name for section in sections}
    names: list[str] = []
    for section in sections:
        own = section.path.rpartition(":")[2] if isinstance(section, FunctionRewardSection) else section.kind
        name, number = section.name or own, 2
        while section.name is None and (name in names or name in given):
            name, number = f"{own}_{number}", number + 1
        names.append(name)
    return names


def model_paths(sections: Sequence[RewardSection]) -> list[str]:
    """Return the models among the rewards, members of ensembles included, in order."""
    paths: list[str] = []
    for section in sections:
        if isinstance(section, ModelRewardSection):
            paths.append(section.path)
        elif isinstance(section, EnsembleRewardSection):
            paths += [member.path for member in section.models]
    return paths


def check_names_and_gates(sections: Sequence[RewardSection]) -> None:
    """Refuse two rewards with the same name, and gates on anything but another reward.

    Raises:
        ValueError: says which names there are.
    """
    names = reward_names(sections)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"rewards: the name {twice[0]} appears twice - names in logs must differ")
    for name, section in zip(names, sections, strict=True):
        others = [other for other in names if other != name]
        if section.gate is not None and section.gate.reward not in others:
            raise ValueError(
                f"rewards: the gate of {name} names {section.gate.reward!r}, which is no other reward; "
                f"there are {others}"
            )
