"""Filters of the next token: top-k, top-p, min-p and a repetition penalty, as transformers' `generate` applies them.

What they leave is another distribution than the policy's: for answers, never for rollouts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.batches import PromptBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which tokens may be drawn; the default is all of them."""

    top_k: int = 0
    """That many of the most probable ones; 0 for all."""
    top_p: float = 1.0
    """The fewest that together have this probability (Holtzman et al. 2020, arXiv:1904.09751)."""
    min_p: float = 0.0
    """Those with at least this share of the largest probability (Nguyen et al. 2024, arXiv:2407.01082)."""
    repetition_penalty: float = 1.0
    """Logits of tokens that were read or written are divided by it, negative ones multiplied (Keskar et al. 2019)."""

    def filtered(self, logits: Tensor, seen: Tensor, temperature: float) -> Tensor:
        """Return logits [N, V] with the penalty, and -inf where a token may not be drawn.

        Args:
            logits: [N, V].
            seen: [N, V] bool, tokens of the prompt and of the response so far.
            temperature: probabilities are softmax(logits / temperature); at 0 the likeliest token stays.
        """
        penalised = torch.where(logits > 0, logits / self.repetition_penalty, logits * self.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
        if temperature == 0:
            return logits
        logits = self._most_probable(logits)
        logits = self._nucleus(logits, temperature)
        probabilities = (logits.float() / temperature).softmax(-1)
        too_small = probabilities < self.min_p * probabilities.amax(-1, keepdim=True)
        return logits.masked_fill(too_small, -torch.inf)

    def _most_probable(self, logits: Tensor) -> Tensor:
        if not 0 < self.top_k < logits.shape[-1]:
            return logits
        return logits.masked_fill(logits < logits.topk(self.top_k).values[:, -1:], -torch.inf)

    def _nucleus(self, logits: Tensor, temperature: float) -> Tensor:
        if self.top_p >= 1:
            return logits
        ascending, order = logits.sort(-1)
        below = (ascending.float() / temperature).softmax(-1).cumsum(-1) <= 1 - self.top_p
        below[:, -1] = False
        return logits.masked_fill(torch.zeros_like(below).scatter(-1, order, below), -torch.inf)


class Filtering:
    """Filters at work: they know which tokens each row of a batch has read and written."""

    def __init__(self, filters: Filters | None, prompts: PromptBatch, vocabulary: int) -> None:
        """Begin with the prompts; None filters nothing."""
        self._filters, mask = filters, prompts.prompt_mask
        self._seen = torch.zeros(len(mask), vocabulary if filters else 0, dtype=torch.bool, device=mask.device)
        if filters is not None:
            rows, columns = mask.nonzero(as_tuple=True)
            self.add(rows, prompts.prompt_ids[rows, columns])

    def add(self, rows: Tensor, ids: Tensor) -> None:
        """Note that the rows [N] read or wrote the tokens [N]."""
        if self._filters is not None:
            self._seen[rows, ids] = True

    def __call__(self, logits: Tensor, rows: Tensor, temperature: float) -> Tensor:
        """Return what the filters leave of the logits [N, V] of the rows [N]."""
        return logits if self._filters is None else self._filters.filtered(logits, self._seen[rows], temperature)
