"""The policy: a causal language model, its value head, and its logprobs at response positions only."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.batches import Sequences
from rlhf.models.passes.anatomy import head_width, hidden_states, switch_off_dropout
from rlhf.models.passes.compiled import is_compiled
from rlhf.models.passes.frozen import last_hidden_states, num_frozen_blocks, split_trunk
from rlhf.models.passes.head import head_logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutput:
    """Logprobs, values and entropies of given response tokens."""

    logprobs: Tensor
    """[B, T] float32, nats, 0 where there is no token."""
    values: Tensor
    """[B, T] float32, V(s_t) before token t, 0 where there is no token."""
    entropy: Tensor
    """[B, T] float32, nats, 0 where there is no token; all 0 unless requested."""


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
        """Put a value head on `lm`, or on `critic`; switch off dropout in both, adapters included."""
        super().__init__()
        self.lm = switch_off_dropout(lm)
        self.critic = None if critic is None else switch_off_dropout(critic)
        self.value_head = ValueHead(head_width(lm if critic is None else critic))
        self._split = split_trunk(lm, num_frozen_blocks(lm))

    @property
    def keeps_gradients(self) -> bool:
        """Whether old logprobs need a pass that keeps gradients: without them, compiled code rounds differently."""
        return is_compiled(self.lm)

    def frozen_states(self, sequences: Sequences) -> Tensor | None:
        """Return [B, S, H], the states entering the first trained block: equal in every pass and in the reference.

        None when every block is trained.
        """
        return None if self._split is None else self._split.frozen_states(sequences.input_ids, sequences.lengths)

    def forward(
        self,
        sequences: Sequences,
        num_steps: int,
        temperature: float,
        *,
        frozen_states: Tensor | None = None,
        with_entropy: bool = False,
    ) -> PolicyOutput:
        """Compute logprobs and values of responses.

        Only hidden states that predict a response token go through the LM head: logits are [N, V], not [B, P + T, V].

        Args:
            sequences: prompts and responses.
            num_steps: T.
            temperature: logits are divided by it.
            frozen_states: those of these sequences, if known; then the frozen blocks are skipped.
            with_entropy: also compute the policy's entropy at each token.
        """
        last = last_hidden_states(self.lm, self._split, sequences, frozen_states)
        hidden = states = sequences.predicting(last)
        if self.critic is not None:
            states = sequences.predicting(hidden_states(self.critic, sequences.input_ids, sequences.lengths))
        logprobs, entropy = head_logprobs(self.lm, hidden, sequences.targets, temperature, with_entropy=with_entropy)
        return PolicyOutput(
            logprobs=sequences.placed(logprobs, num_steps),
            values=sequences.placed(self.value_head(states), num_steps),
            entropy=sequences.placed(entropy, num_steps),
        )


def sequence_logprobs(
    lm: PreTrainedModel, sequences: Sequences, num_steps: int, temperature: float, hidden: Tensor | None = None
) -> Tensor:
    """Return [B, T] float32 logprobs of the responses under a language model without value head (the reference).

    `hidden` [B, S, H] are the trunk's last hidden states, computed here when None.
    """
    states = hidden_states(lm, sequences.input_ids, sequences.lengths) if hidden is None else hidden
    logprobs, _ = head_logprobs(lm, sequences.predicting(states), sequences.targets, temperature)
    return sequences.placed(logprobs, num_steps)
