"""The section `engine`: what draws the responses of rollouts, and what answers in evaluation, told apart by `kind`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlhf.config.section import Section
from rlhf.config.shared import Count, Positive

CAPS = {"token": 2.0, "sequence": 2.0, "icepop": 5.0}
"""The usual largest importance weight of each correction."""


class NativeEngineSection(Section):
    """The decoder of rlhf; transformers' `generate` for a model that it does not know, with a line in the log."""

    kind: Literal["native"] = Field("native", description="native: in this process, with the weights that are trained")


class GenerateEngineSection(Section):
    """Transformers' `generate`, also for models that the decoder of rlhf knows."""

    kind: Literal["generate"] = Field(description="generate: transformers' own loop, in this process")


class ServerSection(Section):
    """A vLLM server with VLLM_SERVER_DEV_MODE=1 that reads the same disk; it gets the weights by path."""

    instead_of_secrets = (
        "put it into an environment variable and name that in token_env: it is sent as Authorization: Bearer"
    )
    kind: Literal["vllm"] = Field(description="vllm: a server on this machine, which loads the weights from a path")
    url: str = Field(description="root address of the server, such as http://127.0.0.1:8000")
    served_model: str | None = Field(None, description="name under which the server serves it; null: its only model")
    timeout: Positive = Field(120.0, description="seconds for one attempt, from the connection to the last byte")
    deadline: Positive = Field(600.0, description="seconds for one request with all attempts and waits")
    retries: int = Field(3, ge=0, description="attempts after the first, on connection errors, 429 and 5xx")
    max_response_bytes: Count = Field(10_000_000, description="size of the largest answer to read, in bytes")
    token_env: str | None = Field(None, description="environment variable with a token, sent as Authorization: Bearer")
    probe_tolerance: Positive = Field(
        0.25,
        description="nats a token, on average over a few known sequences, by which the server's logprobs may differ "
        "from ours after it loaded the weights; beyond, its weights are not these",
    )


class ServerEngineSection(ServerSection):
    """A server that draws rollouts, and how the difference of its logprobs from the trainer's is corrected."""

    correction: Literal["token", "sequence", "icepop"] = Field(
        "token",
        description="importance weights of the policy loss, trainer over engine: cut at cap token by token, cut at cap "
        "for the whole response, or 0 for tokens outside [floor, cap]",
    )
    ahead: bool = Field(
        False,
        description="draw the responses of the next step while this one trains: they are from the weights of one step "
        "before, which the correction accounts for",
    )
    cap: Positive | None = Field(None, description="largest importance weight; null: 2, for icepop 5")
    floor: Positive | None = Field(None, description="smallest importance weight (icepop); null: 0.5")

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest importance weight."""
        cap = CAPS[self.correction] if self.cap is None else self.cap
        if self.correction != "icepop":
            return 0.0, cap
        return 0.5 if self.floor is None else self.floor, cap

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.floor is not None and self.correction != "icepop":
            raise ValueError(f"floor has no effect with correction: {self.correction} - leave it out")
        floor, cap = self.bounds
        if not floor < 1.0 <= cap:
            raise ValueError(f"an importance weight of 1 must be between floor ({floor:g}) and cap ({cap:g})")
        return self


EngineSection = Annotated[
    NativeEngineSection | GenerateEngineSection | ServerEngineSection, Field(discriminator="kind")
]
"""What draws rollouts."""

AnsweringSection = Annotated[NativeEngineSection | GenerateEngineSection | ServerSection, Field(discriminator="kind")]
"""What answers prompts where nothing is trained."""
