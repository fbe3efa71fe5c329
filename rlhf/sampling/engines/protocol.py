"""What a rollout asks of an engine: take these weights, draw these responses, say which weights they are from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from rlhf.batches import PromptBatch, Samples
from rlhf.sampling.batched import Decoding
from rlhf.sampling.endings import OnOver


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights that are trained, in the ways in which an engine outside this process can use them."""

    save: Callable[[Path], None]
    """Writes them, whole and without an adapter, as a Hugging Face directory."""
    vocabulary: int
    """How many token ids they know."""
    known: list[list[int]]
    """A few sequences of at least 2 tokens, by which an engine's weights are compared with these."""
    logprobs: Callable[[list[list[int]]], list[list[float]]]
    """The trainer's own logprobs, at temperature 1, of all tokens but the first of given sequences; nats."""


class Engine(Protocol):
    """Draws responses from the weights that it was given last."""

    version: int
    """The weights that it was given last; 0 before the first."""
    is_exact: bool
    """Whether it computes with the trainer's own modules, so that its logprobs differ by rounding alone."""

    def load(self, weights: Weights, version: int) -> None:
        """Take the weights `version`; an engine that holds the trained modules themselves has them already.

        Raises:
            EngineError: it does not answer, or answers from other weights.
        """

    def sample(
        self,
        prompts: PromptBatch,
        decoding: Decoding,
        generator: torch.Generator,
        num_forced: Tensor | None = None,
        on_over: OnOver | None = None,
    ) -> Samples:
        """Draw one response to each prompt.

        Args:
            prompts: any number of them.
            decoding: how responses are drawn.
            generator: the only source of randomness.
            num_forced: [B] int64, tokens at the end of each prompt that already begin its response; None for 0.
            on_over: told of each response as soon as it is over, in the thread of the caller.

        Raises:
            EngineError: it does not answer, or not with responses of the weights `version`.
            GuardStop: the model's logits are not finite.
        """


def known_sequences(prompts: PromptBatch, num: int = 4) -> list[list[int]]:
    """Return the longest prompts, by which a server's weights are compared with the trainer's.

    One of a single token, which predicts nothing, is read twice in a row.
    """
    lengths = prompts.prompt_mask.sum(1)
    chosen = lengths.argsort(descending=True, stable=True)[:num].tolist()
    rows = [prompts.prompt_ids[row, : int(lengths[row])].tolist() for row in chosen]
    return [ids if len(ids) > 1 else ids * 2 for ids in rows]
