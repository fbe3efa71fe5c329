"""The frozen reference: a copy of the policy, or the same model with its adapter switched off."""

import copy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlhf.batches import Sequences
from rlhf.models.passes.frozen import last_hidden_states, num_frozen_blocks, split_trunk
from rlhf.models.policy import sequence_logprobs
from rlhf.models.pretrained.setup import Trainable


class Reference:
    """The policy as it was before PPO, or another model."""

    def __init__(self, policy: Trainable, other: PreTrainedModel | None = None) -> None:
        """Take the reference from a policy that has not been trained yet; frozen weights are shared with it.

        `other` is a frozen model to use instead, which shares nothing with the policy. `model` is the model that the
        reference runs: the policy's own if a new adapter is trained. Of an adapter that was trained before, a frozen
        copy runs on the same base.
        """
        self._adapter = None if other is not None or policy.continues else policy.adapter
        if other is not None:
            self.model, self._split = other, None
            return
        self.model = _frozen_copy(policy.model) if self._adapter is None else policy.model
        self._split = split_trunk(self.model, num_frozen_blocks(policy.model))

    @torch.no_grad()
    def logprobs(
        self, sequences: Sequences, num_steps: int, temperature: float, frozen_states: Tensor | None = None
    ) -> Tensor:
        """Return [B, T] float32 logprobs of the responses in `sequences`, 0 where there is no token.

        The reference shares the policy's frozen blocks: with `frozen_states` [B, S, H] it skips them.
        """
        if self._adapter is None:
            hidden = last_hidden_states(self.model, self._split, sequences.input_ids, frozen_states)
            return sequence_logprobs(self.model, sequences, num_steps, temperature, hidden)
        with self._adapter.disable_adapter():
            return sequence_logprobs(self.model, sequences, num_steps, temperature)


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    shared = {id(parameter): parameter for parameter in model.parameters() if not parameter.requires_grad}
    reference: PreTrainedModel = copy.deepcopy(model, memo=dict(shared))
    reference.requires_grad_(False)
    return reference
