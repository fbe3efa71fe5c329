"""The tensor records that the packages pass to each other.

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


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on `device`.

    The host does not wait for a copy to CUDA: what is computed there comes after it anyway. A copy to the host is
    complete when this returns.
    """
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What every record can do: move to a device."""

    def to(self, device: torch.device | str) -> Self:
        """Return the record with every tensor on `device`."""
        return replace(self, **{f.name: sent(getattr(self, f.name), device) for f in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Record):
    """A record of rows, which can be picked."""

    def rows(self, index: Tensor) -> Self:
        """Return the record with the sequences named by `index` [N] (int64 or bool), on any device."""
        index = sent(index, getattr(self, fields(self)[0].name).device)
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
    """Pairs of sequences, the first of which was preferred."""

    chosen_ids: Tensor
    """[B, S] int64."""
    chosen_mask: Tensor
    """[B, S] bool, True on real tokens."""
    rejected_ids: Tensor
    """[B, S'] int64."""
    rejected_mask: Tensor
    """[B, S'] bool, True on real tokens."""
    margins: Tensor
    """[B] float32, how far the chosen score must lead; 0 without margins."""

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
class Sequences(Record):
    """[B, S] sequences, and where in them each response token is.

    To join them takes the host several looks at the masks: join where these are, on the host if possible, and then
    move the result.
    """

    input_ids: Tensor
    """[B, S] int64, prompt then response, 0 after the end; S is the longest real length."""
    lengths: Tensor
    """[B] int64, real tokens."""
    rows: Tensor
    """[N] int64, row of each response token that the policy emitted, in row order."""
    steps: Tensor
    """[N] int64, its index t in the response."""
    columns: Tensor
    """[N] int64, its column in input_ids; its logits are one column to the left."""

    @property
    def targets(self) -> Tensor:
        """Return [N] int64, the response tokens themselves."""
        return self.input_ids[self.rows, self.columns]

    def predicting(self, hidden: Tensor) -> Tensor:
        """Return the entries of `hidden` [B, S, H] that predict a response token, [N, H]."""
        return hidden[self.rows, self.columns - 1]

    def placed(self, flat: Tensor, num_steps: int) -> Tensor:
        """Return [B, T], T = `num_steps`, with the entries of `flat` [N] at their row and step and 0 elsewhere."""
        empty = torch.zeros(len(self.lengths), num_steps, dtype=flat.dtype, device=flat.device)
        return empty.index_put((self.rows, self.steps), flat)


def join(
    prompt_ids: Tensor, prompt_mask: Tensor, response_ids: Tensor, response_mask: Tensor, forced: Tensor | None = None
) -> Sequences:
    """Join prompts and responses, each at the left of its row.

    Args:
        prompt_ids: [B, P] int64.
        prompt_mask: [B, P] bool, True on real tokens.
        response_ids: [B, T] int64.
        response_mask: [B, T] bool, True on the tokens that the policy emitted: these are predicted.
        forced: [B, T] bool, True on tokens before them that a reset put there: these are context, like the prompt.

    Raises:
        ValueError: a prompt is empty, real tokens follow padding, or a token is both forced and emitted.
    """
    present = response_mask if forced is None else response_mask | forced
    for name, mask in (("prompt_mask", prompt_mask), ("response_mask", present)):
        if bool((mask[:, 1:] & ~mask[:, :-1]).any()):
            raise ValueError(f"{name} must be True from the left without a gap: sequences are right-padded")
    if not bool(prompt_mask.any(1).all()):
        raise ValueError("every prompt needs at least one token: nothing else predicts the first response token")
    if forced is not None and bool((forced & response_mask.cummax(1).values).any()):
        raise ValueError("forced tokens must come before every token that the policy emitted")
    prompt_lengths = prompt_mask.sum(1)
    lengths = prompt_lengths + present.sum(1)
    input_ids = prompt_ids.new_zeros(len(lengths), int(lengths.max()))
    rows, columns = prompt_mask.nonzero(as_tuple=True)
    input_ids[rows, columns] = prompt_ids[rows, columns]
    rows, steps = present.nonzero(as_tuple=True)
    input_ids[rows, prompt_lengths[rows] + steps] = response_ids[rows, steps]
    rows, steps = response_mask.nonzero(as_tuple=True)
    return Sequences(input_ids=input_ids, lengths=lengths, rows=rows, steps=steps, columns=prompt_lengths[rows] + steps)


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
    """[B] bool, True when the response ended by EOS or a stop string, False when it was truncated by length."""

    def __post_init__(self) -> None:
        shape = tuple(self.response_ids.shape)
        _check(self, "response_ids", self.response_ids, shape, torch.int64)
        _check(self, "response_mask", self.response_mask, shape, torch.bool)
        _check(self, "logprobs", self.logprobs, shape, torch.float32)
        _check(self, "ended", self.ended, shape[:1], torch.bool)

    @property
    def responses(self) -> list[tuple[int, ...]]:
        """[B] the tokens of each response, without padding."""
        lengths = self.response_mask.sum(1).tolist()
        return [tuple(ids[:length]) for ids, length in zip(self.response_ids.tolist(), lengths, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout(Batch):
    """What the models computed for a batch of responses, before any choice of algorithm."""

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
    """[B, T] float32, 0 where no reward scores single tokens."""
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

    def episode_scores(self) -> Tensor:
        """Return scores [B]: of the whole response plus of its tokens, before KL."""
        return self.scores + self.token_scores.sum(1)

    def sequences(self) -> Sequences:
        """Return prompts and responses joined, as models read them."""
        return join(self.prompt_ids, self.prompt_mask, self.response_ids, self.response_mask, self.forced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experience(Batch):
    """A rollout with its rewards, advantages and returns."""

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
        """Return the record with the sequences named by `index` [N], on any device."""
        index = sent(index, self.kl.device)
        return replace(
            self,
            rollout=self.rollout.rows(index),
            kl=self.kl[index],
            rewards=self.rewards[index],
            advantages=self.advantages[index],
            returns=self.returns[index],
        )
