"""The policy: a causal language model, its value head, and its logprobs at response positions only."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlhf.functional.logprobs import entropy, token_logprobs
from rlhf.models.anatomy import hidden_size, hidden_states, logits
from rlhf.models.sequences import Sequences

LOGIT_CHUNK = 512
"""Response positions whose logits exist at the same time: 512 x 49,152 float32 are 100 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutput:
    """What a policy says about response tokens it is shown."""

    logprobs: Tensor
    """[B, T] float32, nats, 0 where there is no token."""
    values: Tensor
    """[B, T] float32, V(s_t) before token t, 0 where there is no token."""
    entropy: Tensor
    """[B, T] float32, nats, 0 where there is no token or where it was not asked for."""


class ValueHead(nn.Module):
    """A linear map from hidden states to V(s), in float32, starting at 0."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, 1, dtype=torch.float32)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [N] values of hidden states [N, H]."""
        return self.linear(hidden.float()).squeeze(-1)  # type: ignore[no-any-return]


class PolicyWithValueHead(nn.Module):
    """A causal language model with a value head on its trunk, or on a trunk of its own (`critic`)."""

    def __init__(self, lm: PreTrainedModel, critic: PreTrainedModel | None = None) -> None:
        super().__init__()
        self.lm = lm
        self.critic = critic
        self.value_head = ValueHead(hidden_size(lm if critic is None else critic))

    def forward(self, sequences: Sequences, num_steps: int, temperature: float, *, with_entropy: bool = False) -> PolicyOutput:
        """Return logprobs and values of the responses in `sequences` as [B, T], T = `num_steps`.

        Only hidden states that predict a response token meet the vocabulary: logits are [N, V], never [B, P + T, V].

        Args:
            temperature: logits are divided by it.
            with_entropy: also the policy's entropy at each token.
        """
        hidden = hidden_states(self.lm, sequences.input_ids)[sequences.rows, sequences.columns - 1]
        states = hidden
        if self.critic is not None:
            states = hidden_states(self.critic, sequences.input_ids)[sequences.rows, sequences.columns - 1]
        targets = sequences.input_ids[sequences.rows, sequences.columns]
        logprobs, spread = head_logprobs(self.lm, hidden, targets, temperature, with_entropy=with_entropy)
        return PolicyOutput(
            logprobs=_placed(logprobs, sequences, num_steps),
            values=_placed(self.value_head(states), sequences, num_steps),
            entropy=_placed(spread, sequences, num_steps),
        )


def sequence_logprobs(lm: PreTrainedModel, sequences: Sequences, num_steps: int, temperature: float) -> Tensor:
    """Return [B, T] float32 logprobs of the responses under a language model without value head (the reference)."""
    hidden = hidden_states(lm, sequences.input_ids)[sequences.rows, sequences.columns - 1]
    targets = sequences.input_ids[sequences.rows, sequences.columns]
    logprobs, _ = head_logprobs(lm, hidden, targets, temperature)
    return _placed(logprobs, sequences, num_steps)


def head_logprobs(
    lm: PreTrainedModel, hidden: Tensor, targets: Tensor, temperature: float, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor]:
    """Return [N] logprobs of `targets` [N] given `hidden` [N, H], and [N] entropies (zeros when not asked for).

    Logits are made in chunks, and made again in the backward pass, so that memory does not grow with N.
    """

    def chunk(states: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits(lm, states).float()
        spread = entropy(scores, temperature) if with_entropy else torch.zeros_like(ids, dtype=torch.float32)
        return token_logprobs(scores, ids, temperature), spread

    parts = [
        checkpoint(chunk, states, ids, use_reentrant=False) if len(hidden) > LOGIT_CHUNK and torch.is_grad_enabled() else chunk(states, ids)
        for states, ids in zip(hidden.split(LOGIT_CHUNK), targets.split(LOGIT_CHUNK), strict=True)
    ]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([spread for _, spread in parts])


def _placed(flat: Tensor, sequences: Sequences, num_steps: int) -> Tensor:
    """Return [B, T] with the entries of `flat` [N] at their row and step."""
    empty = torch.zeros(len(sequences.lengths), num_steps, dtype=flat.dtype, device=flat.device)
    return empty.index_put((sequences.rows, sequences.steps), flat)
