"""The tensor records that travel between rooms.

Axes: B sequences, P prompt positions, T response positions, S = P + T, V vocabulary. Masks are bool and True means
"this position counts". Sequences are right-padded. A masked position holds 0.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


def _check(record: object, name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape or tensor.dtype != dtype:
        raise ValueError(
            f"{type(record).__name__}.{name} must be {dtype} {list(shape)}, found {tensor.dtype} {list(tensor.shape)}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What every record can do: move to a device and pick rows."""

    def to(self, device: torch.device | str) -> Self:
        """Return the record with every tensor on `device`."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def rows(self, index: Tensor) -> Self:
        """Return the record with the sequences named by `index` [N] (int64 or bool)."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch(Batch):
    """Sequences for the supervised loss."""

    input_ids: Tensor
    """[B, S] int64 token ids."""
    attention_mask: Tensor
    """[B, S] bool, True on real tokens."""
    loss_mask: Tensor
    """[B, S] bool, True on the tokens that are predicted (never on the first)."""

    def __post_init__(self) -> None:
        shape = tuple(self.input_ids.shape)
        _check(self, "input_ids", self.input_ids, shape, torch.int64)
        _check(self, "attention_mask", self.attention_mask, shape, torch.bool)
        _check(self, "loss_mask", self.loss_mask, shape, torch.bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceBatch(Batch):
    """Pairs of sequences of which the first was preferred."""

    chosen_ids: Tensor
    """[B, S] int64."""
    chosen_mask: Tensor
    """[B, S] bool, True on real tokens."""
    rejected_ids: Tensor
    """[B, S'] int64."""
    rejected_mask: Tensor
    """[B, S'] bool, True on real tokens."""
    margins: Tensor
    """[B] float32, by how much the chosen score must lead; 0 without margins."""

    def __post_init__(self) -> None:
        chosen, rejected = tuple(self.chosen_ids.shape), tuple(self.rejected_ids.shape)
        _check(self, "chosen_ids", self.chosen_ids, chosen, torch.int64)
        _check(self, "chosen_mask", self.chosen_mask, chosen, torch.bool)
        _check(self, "rejected_ids", self.rejected_ids, (chosen[0], rejected[1]), torch.int64)
        _check(self, "rejected_mask", self.rejected_mask, (chosen[0], rejected[1]), torch.bool)
        _check(self, "margins", self.margins, (chosen[0],), torch.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBatch(Batch):
    """Prompts, right-padded."""

    prompt_ids: Tensor
    """[B, P] int64."""
    prompt_mask: Tensor
    """[B, P] bool, True on real tokens; each row starts with a True."""

    def __post_init__(self) -> None:
        shape = tuple(self.prompt_ids.shape)
        _check(self, "prompt_ids", self.prompt_ids, shape, torch.int64)
        _check(self, "prompt_mask", self.prompt_mask, shape, torch.bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples(Batch):
    """What the sampler returns for a PromptBatch, row by row."""

    response_ids: Tensor
    """[B, T] int64, the stop token included, 0 where masked."""
    response_mask: Tensor
    """[B, T] bool, True on every token that the policy emitted, the EOS included."""
    logprobs: Tensor
    """[B, T] float32, log-probability of each sampled token at the sampling temperature, 0 where masked."""
    ended: Tensor
    """[B] bool, True when the response ended by EOS or a stop string, False when it was cut by length."""

    def __post_init__(self) -> None:
        shape = tuple(self.response_ids.shape)
        _check(self, "response_ids", self.response_ids, shape, torch.int64)
        _check(self, "response_mask", self.response_mask, shape, torch.bool)
        _check(self, "logprobs", self.logprobs, shape, torch.float32)
        _check(self, "ended", self.ended, shape[:1], torch.bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Batch):
    """What the models said about a batch of responses, before any algorithm choice."""

    prompt_ids: Tensor
    """[B, P] int64, right-padded."""
    prompt_mask: Tensor
    """[B, P] bool."""
    response_ids: Tensor
    """[B, T] int64."""
    response_mask: Tensor
    """[B, T] bool, True on every token that the policy emitted, the EOS included; False on forced tokens."""
    forced: Tensor
    """[B, T] bool, True on tokens copied from a demonstration: part of the state, never an action."""
    logprobs: Tensor
    """[B, T] float32, nats, the sampling policy's, from a training-precision forward at the sampling temperature."""
    ref_logprobs: Tensor
    """[B, T] float32, nats, the frozen reference's, at the same temperature."""
    values: Tensor
    """[B, T] float32, V(s_t), the estimate before token t is emitted."""
    scores: Tensor
    """[B] float32, of the whole response, before KL."""
    token_scores: Tensor
    """[B, T] float32, zeros where no reward speaks of single tokens."""
    ended: Tensor
    """[B] bool, True when the response ended by EOS or a stop string."""

    def __post_init__(self) -> None:
        prompt, response = tuple(self.prompt_ids.shape), tuple(self.response_ids.shape)
        _check(self, "prompt_ids", self.prompt_ids, prompt, torch.int64)
        _check(self, "prompt_mask", self.prompt_mask, prompt, torch.bool)
        response = (prompt[0], response[1])
        _check(self, "response_ids", self.response_ids, response, torch.int64)
        for name in ("response_mask", "forced"):
            _check(self, name, getattr(self, name), response, torch.bool)
        for name in ("logprobs", "ref_logprobs", "values", "token_scores"):
            _check(self, name, getattr(self, name), response, torch.float32)
        _check(self, "scores", self.scores, response[:1], torch.float32)
        _check(self, "ended", self.ended, response[:1], torch.bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience(Batch):
    """A rollout in which rewards, advantages and returns exist."""

    rollout: Rollout
    kl: Tensor
    """[B, T] float32, nats, the estimate of KL(policy || reference) at each token."""
    rewards: Tensor
    """[B, T] float32, KL penalty included."""
    advantages: Tensor
    """[B, T] float32, as the policy loss reads them (whitened when the config says so)."""
    returns: Tensor
    """[B, T] float32, unwhitened advantages + old values."""

    def __post_init__(self) -> None:
        shape = tuple(self.rollout.response_ids.shape)
        for name in ("kl", "rewards", "advantages", "returns"):
            _check(self, name, getattr(self, name), shape, torch.float32)

    def rows(self, index: Tensor) -> Self:
        """Return the record with the sequences named by `index` [N]."""
        return replace(
            self,
            rollout=self.rollout.rows(index),
            kl=self.kl[index],
            rewards=self.rewards[index],
            advantages=self.advantages[index],
            returns=self.returns[index],
        )
