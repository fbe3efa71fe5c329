"""The reward that a server offers, and how the texts of a request become episodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from rlhf.data.encoder import Encoder
from rlhf.errors import ConfigError
from rlhf.fetch import resolve
from rlhf.models.pretrained.loading import context_length
from rlhf.models.pretrained.tokenizer import load_tokenizer
from rlhf.rewards.kinds.function import FunctionReward
from rlhf.rewards.kinds.model import ModelReward
from rlhf.rewards.protocol import Episode, Reward
from rlhf.training.precision import compute_dtype

JOINED_TEXTS = 256
"""The most texts of waiting requests that a model scores together; a larger request is scored alone."""


class ScoreRequest(BaseModel):
    """The body of OpenRLHF's remote reward models; keys that its forks add are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    query: list[str]
    """Prompt and response as one text, with their special tokens."""
    prompts: list[str] | None = None
    """The prompts alone."""
    labels: list[Any] | None = None
    """Whatever the data set holds with each prompt."""

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        for name in ("prompts", "labels"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.query):
                raise ValueError(f"{name} holds {len(values)} items, query {len(self.query)}")
        return self

    @field_validator("query", "prompts")
    @classmethod
    def _is_unicode(cls, texts: list[str] | None) -> list[str] | None:
        # JSON can encode half a surrogate pair, which no tokenizer reads.
        for index, text in enumerate(texts or []):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"item {index} holds half a surrogate pair")
        return texts


class Refused(Exception):
    """A request that cannot be scored, with the HTTP status that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A reward that a server offers."""

    name: str
    """Its name in messages."""
    reward: Reward
    """Scores the episodes."""
    episodes: Callable[[ScoreRequest], list[Episode]]
    """Reads a request, or raises Refused."""
    joined_texts: int
    """The most texts of waiting requests to score in one call; 0 gives each request its own call."""


def model_source(path: str, precision: Literal["auto", "float32", "bfloat16"], device_name: str | None) -> Source:
    """Load a reward model.

    The texts are tokenized as they are, special tokens included. If a query begins with its prompt, prompt and response
    are tokenized separately, as the policy's own tokens were. A BOS is added if the tokenizer does so by default. There
    is an EOS only if the query spells it out: a truncated response has none.

    Raises:
        ConfigError: it cannot be loaded, or there is no such device.
    """
    device = _device(device_name)
    directory = resolve(path)
    tokenizer = load_tokenizer(directory)
    encoder = Encoder(tokenizer, append_eos=False)
    reward = ModelReward(directory, tokenizer, dtype=compute_dtype(precision, device), device=device)
    limit = context_length(reward.model.classifier)

    def episodes(request: ScoreRequest) -> list[Episode]:
        found = []
        for index, query in enumerate(request.query):
            prompt, completion = _parts(request, index) or (query, "")
            episode = Episode(
                prompt=prompt,
                completion=completion,
                columns={},
                prompt_ids=tuple(encoder.prompt(prompt)),
                response_ids=tuple(encoder.bare(completion)),
            )
            num_tokens = len(episode.prompt_ids) + len(episode.response_ids)
            if num_tokens == 0:
                raise Refused(422, f"query.{index}: is empty")
            if limit is not None and num_tokens > limit:
                raise Refused(413, f"query.{index}: has {num_tokens} tokens, the model {limit} positions")
            found.append(episode)
        return found

    return Source(name=f"reward model {path}", reward=reward, episodes=episodes, joined_texts=JOINED_TEXTS)


def function_source(spec: str) -> Source:
    """Load a function; each request calls it once with `prompts`, `completions` and the column `labels`.

    A completion is what follows the prompt in its query. The function may compare the responses of a request, so
    requests are never joined.

    Raises:
        ConfigError: it cannot be loaded.
    """

    def episodes(request: ScoreRequest) -> list[Episode]:
        found = []
        for index in range(len(request.query)):
            parts = _parts(request, index)
            if parts is None:
                raise Refused(422, f"query.{index}: does not contain its prompt, so its completion is unknown")
            columns = {} if request.labels is None else {"labels": request.labels[index]}
            found.append(Episode(prompt=parts[0], completion=parts[1], columns=columns, prompt_ids=(), response_ids=()))
        return found

    return Source(name=f"reward {spec!r}", reward=FunctionReward(spec), episodes=episodes, joined_texts=0)


def _parts(request: ScoreRequest, index: int) -> tuple[str, str] | None:
    """Return prompt and completion; the prompt includes what a query has before it, such as a BOS."""
    query = request.query[index]
    prompt = request.prompts[index] if request.prompts is not None else ""
    start = query.find(prompt)
    end = start + len(prompt)
    return None if start < 0 else (query[:end], query[end:])


def _device(name: str | None) -> torch.device:
    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise ConfigError(f"serve-reward: --device {name}: {str(error).splitlines()[0]}") from None
