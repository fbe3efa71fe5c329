"""The frozen reference: a copy of the policy, or the same model with its adapter switched off."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.batches import Sequences, sent
from rlhf.errors import ConfigError
from rlhf.models.passes.frozen import last_hidden_states, num_frozen_blocks, split_trunk
from rlhf.models.passes.fused import speed_up
from rlhf.models.passes.quantized import quantized_tensors
from rlhf.models.policy import sequence_logprobs
from rlhf.models.pretrained.loading import frozen_in, load_causal_lm
from rlhf.models.pretrained.setup import Trainable
from rlhf.models.pretrained.tokenizer import load_tokenizer, tokenizer_fingerprint
from rlhf.models.pretrained.vocabulary import fit_vocabulary


class Reference:
    """The policy as it was before PPO, or another model."""

    def __init__(self, policy: Trainable, other: PreTrainedModel | None = None, *, on_host: bool = False) -> None:
        """Take the reference from a policy that has not been trained yet; frozen weights are shared with it.

        `other` is a frozen model to use instead, which shares nothing with the policy. `model` is the model that the
        reference runs: the policy's own if a new adapter is trained. Of an adapter that was trained before, a frozen
        copy runs on the same base. With `on_host` its own weights stay in the host's memory between `at_hand` blocks.

        Raises:
            ConfigError: `on_host`, and the reference has no weights of its own.
        """
        self._adapter = None if other is not None or policy.continues else policy.adapter
        if other is not None:
            self.model, self._split = other, None
        else:
            self.model = _frozen_copy(policy.model) if self._adapter is None else policy.model
            self._split = split_trunk(self.model, num_frozen_blocks(policy.model))
        shared, self._device = {id(parameter) for parameter in policy.model.parameters()}, policy.model.device
        own = [parameter for parameter in self.model.parameters() if id(parameter) not in shared]
        self._absent = {parameter: parameter.data for parameter in own} if on_host else {}
        if on_host and not own:
            raise ConfigError(
                "reference_on_host has no effect: the reference is the policy with its adapter off - leave it out"
            )
        for parameter in self._absent:
            self._absent[parameter] = parameter.data = _on_host(parameter.data)

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """Have the weights on the policy's device, for any number of passes."""
        for parameter, weight in self._absent.items():
            parameter.data = sent(weight, self._device)
        try:
            yield
        finally:
            for parameter, weight in self._absent.items():
                parameter.data = weight

    @torch.no_grad()
    def logprobs(
        self, sequences: Sequences, num_steps: int, temperature: float, frozen_states: Tensor | None = None
    ) -> Tensor:
        """Return [B, T] float32 logprobs of the responses in `sequences`, 0 where there is no token.

        The reference shares the policy's frozen blocks: with `frozen_states` [B, S, H] it skips them.
        """
        if self._adapter is None:
            hidden = last_hidden_states(self.model, self._split, sequences, frozen_states)
            return sequence_logprobs(self.model, sequences, num_steps, temperature, hidden)
        with self._adapter.disable_adapter():
            return sequence_logprobs(self.model, sequences, num_steps, temperature)


def load_reference(
    source: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Load a model to which the KL is measured, frozen.

    Args:
        source: directory or hub name; an adapter is merged into its base.
        tokenizer: the policy's.
        dtype: what it computes in.
        device: where.

    Raises:
        ConfigError: it cannot be loaded, or has another tokenizer.
    """
    own = load_tokenizer(source)
    ours, theirs = tokenizer_fingerprint(tokenizer), tokenizer_fingerprint(own)
    if ours != theirs:
        raise ConfigError(
            f"reference: {source} has another tokenizer ({len(own)} ids, {theirs[:8]}) than the policy "
            f"({len(tokenizer)} ids, {ours[:8]}), so no KL is defined - take a model with the policy's tokenizer"
        )
    return made_frozen(load_causal_lm(source), source, tokenizer, dtype, device)


def made_frozen(
    model: PreTrainedModel, name: str, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Make a loaded language model ready to be asked and never trained, in place; `name` is for messages.

    Raises:
        ConfigError: the tokenizer does not fit.
    """
    fit_vocabulary(model, tokenizer, name)
    speed_up(model)
    return frozen_in(model, dtype).to(device)  # type: ignore[arg-type,no-any-return]  # decorated without types


def _on_host(weight: Tensor) -> Tensor:
    """Return a copy in the host's memory, from which a GPU copies at full speed."""
    copied = weight.to("cpu", copy=True)
    return copied.pin_memory() if torch.cuda.is_available() else copied


def _frozen_copy(model: PreTrainedModel) -> PreTrainedModel:
    shared: dict[int, Tensor] = {id(each): each for each in model.parameters() if not each.requires_grad}
    shared |= {id(each): each for each in quantized_tensors(model)}
    reference: PreTrainedModel = copy.deepcopy(model, memo=dict(shared))
    reference.requires_grad_(False)
    return reference
