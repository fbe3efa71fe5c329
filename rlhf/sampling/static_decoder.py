"""A decoder whose steps are the same kernels on the same memory, so that a CUDA graph can replay them.

What a model needs for it, memory and graphs, is kept from batch to batch: of one model at a time, and until the model
is gone, another one decodes, or `release` is called.
"""

import logging
import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from rlhf.batches import PromptBatch
from rlhf.sampling.cache import ReservedLayer, make_cache
from rlhf.sampling.decoder import Decoder
from rlhf.sampling.graphs import CudaGraphs, Eager, Runner, agree
from rlhf.sampling.model_state import addresses, is_capturable, switches
from rlhf.sampling.static_memory import LARGEST_BUCKET, Bucket, StaticMemory, bucket_of, capacity_of

_TRIED = 2
"""Tokens after which the logits of a model that was not decoded so before are compared with those of `Decoder`."""
log = logging.getLogger(__name__)


class Kept:
    """Memory and graphs for a model's steps, kept from batch to batch."""

    def __init__(self, weights: Hashable, runner: Runner) -> None:
        """Begin with nothing; `weights` tells where the model's weights lie."""
        self.weights, self.runner = weights, runner
        self.memory: StaticMemory | None = None
        self._user: Callable[[], object | None] = lambda: None

    @property
    def is_in_use(self) -> bool:
        """Whether a batch is being decoded in this memory."""
        return self._user() is not None

    def used_by(self, decoder: "StaticDecoder") -> None:
        """Note who writes into the memory until it is gone."""
        self._user = weakref.ref(decoder)

    def bucket(self, layers: Sequence[ReservedLayer], logits: Tensor, num_rows: int, capacity: int) -> Bucket:
        """Return a bucket of memory; where there is too little, it is reserved anew and the graphs are forgotten.

        Args:
            layers: of the cache that has read the prompts.
            logits: [N, V] that the model gave for them.
            num_rows: rows of the bucket.
            capacity: tokens of a row.
        """
        if self.memory is None or not self.memory.fits(num_rows, capacity):
            rows, slots = (0, 0) if self.memory is None else (self.memory.num_rows, self.memory.num_slots)
            self.runner.clear()
            self.memory = None  # freed before more is taken
            self.memory = StaticMemory(layers, logits, max(rows, num_rows), max(slots, num_rows * capacity))
        return self.memory.bucket(num_rows, capacity)


_KEPT: "WeakKeyDictionary[nn.Module, Kept]" = WeakKeyDictionary()
_SOUND: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()
"""Whether a model may be decoded so, by model: it was tried."""


class StaticDecoder(Decoder):
    """The rows that are still being generated, in memory of fixed shape."""

    def __init__(
        self, model: Callable[..., Any], prompts: PromptBatch, max_new_tokens: int, kept: Kept, key: Hashable = None
    ) -> None:
        """Prepare `prompts`, which must be on the model's device, for at most `max_new_tokens` further tokens.

        Args:
            model: as `Decoder` takes it; `is_capturable`.
            prompts: as `Decoder` takes them.
            max_new_tokens: tokens that are read at most.
            kept: memory and runner of the steps, which this decoder has for itself as long as it lives.
            key: what tells the model's steps from those that it computes otherwise (`switches`).
        """
        super().__init__(model, prompts, 0)
        self._kept, self._key = kept, key
        self._capacity, self._num_rows = capacity_of(self._length + max_new_tokens), len(self._sources)
        self._bucket: Bucket
        kept.used_by(self)

    def read_prompts(self) -> Tensor:
        """Run the model over the prompts, take their keys and values, and return the logits [B, V] that follow."""
        logits = self._forward(self._prompt_ids, 0)
        pads = logits.new_zeros(len(logits), dtype=torch.int64) if self._mask is None else (~self._mask).sum(-1)
        layers = [layer for layer in self._cache.layers if isinstance(layer, ReservedLayer)]
        num_padded = bucket_of(self._num_rows)
        self._bucket = self._kept.bucket(layers, logits, num_padded, self._capacity)
        self._bucket.fill(layers, _padded(self._sources, num_padded), pads, self._length)
        self._cache, self._mask = self._bucket.cache(), None
        return logits[self._sources]

    def read_tokens(self, ids: Tensor) -> Tensor:
        """Append the tokens `ids` [B] and return the logits [B, V] that follow, in memory that the next step writes."""
        bucket = self._bucket
        self._length += 1
        bucket.ids[: self._num_rows, 0] = ids
        bucket.place.add_(1)
        self._kept.runner.run((*bucket.size, self._key), partial(self._step, bucket), bucket.logits)
        return bucket.logits[: self._num_rows]

    def keep_rows(self, index: Tensor) -> None:
        """Keep only the rows `index` [N], at most as many as before, in the smallest bucket that has room for them."""
        before, num_padded = self._bucket, bucket_of(len(index))
        assert self._kept.memory is not None and num_padded <= before.size[0]
        self._num_rows = len(index)
        self._bucket = self._kept.memory.bucket(num_padded, self._capacity)
        self._bucket.take(before, _padded(index, num_padded), self._length)
        self._cache = self._bucket.cache()

    def _step(self, bucket: Bucket) -> None:
        """Read a bucket's tokens and write its logits; no number of the host changes from one step to the next."""
        output = self._model(
            input_ids=bucket.ids,
            attention_mask=bucket.visible(),
            position_ids=bucket.place - bucket.starts,
            past_key_values=self._cache,
            use_cache=True,
            return_dict=True,
            **self._only_last,
        )
        bucket.logits.copy_(output.logits[:, -1])


def static_decoder(model: Callable[..., Any], prompts: PromptBatch, max_new_tokens: int) -> StaticDecoder | None:
    """Return a decoder that replays its steps, None where `Decoder` has to do it.

    That is the case for models whose step cannot be captured, or once a capture failed; for more than `LARGEST_BUCKET`
    rows; for a single token, which is drawn from the prompts' own logits; and while another batch is in the memory.
    """
    if max_new_tokens < 2 or not takes_static_shapes(model, len(prompts.prompt_ids)):
        return None
    assert isinstance(model, nn.Module)
    if any(kept.is_in_use for kept in _KEPT.values()) or not _is_sound(model, prompts, max_new_tokens):
        return None
    return StaticDecoder(model, prompts, max_new_tokens, _kept(model), switches(model))


def takes_static_shapes(model: Callable[..., Any], num_rows: int) -> bool:
    """Whether a model's steps of so many rows may be captured, by what can be seen without trying it."""
    config = getattr(model, "config", None)
    return config is not None and bucket_of(num_rows) <= LARGEST_BUCKET and is_capturable(model, make_cache(config, 1))


def num_graphs(model: nn.Module) -> int:
    """Return how many graphs are kept for a model; 0 where its steps are called."""
    runner = None if model not in _KEPT else _KEPT[model].runner
    return len(runner) if isinstance(runner, CudaGraphs) else 0


def release(model: object) -> None:
    """Free what is kept for a model; its next batch reserves and captures again."""
    if isinstance(model, nn.Module):
        _note_failures()
        _KEPT.pop(model, None)


def _note_failures() -> None:
    """Remember which models cannot be captured, before what is kept of them is forgotten."""
    for model, kept in _KEPT.items():
        if kept.runner.has_failed:
            _SOUND[model] = False


def _kept(model: nn.Module) -> Kept:
    """Return what is kept for a model whose weights did not move, or begin anew, for this model alone."""
    weights, found = addresses(model), _KEPT.get(model)
    if found is None or found.weights != weights:
        _note_failures()
        _KEPT.clear()
        found = _KEPT[model] = Kept(weights, CudaGraphs())
    return found


def _is_sound(model: nn.Module, prompts: PromptBatch, max_new_tokens: int) -> bool:
    """Whether a model gives the same logprobs with static shapes as without, and no capture of it failed."""
    kept = _KEPT.get(model)
    if kept is not None and kept.runner.has_failed:
        release(model)
    if model not in _SOUND:
        _SOUND[model] = _tried(model, prompts, min(_TRIED, max_new_tokens))
    return _SOUND[model]


def _tried(model: nn.Module, prompts: PromptBatch, num_tokens: int) -> bool:
    """Read some tokens after the shortest and the longest prompt in both ways, and compare."""
    lengths = prompts.prompt_mask.sum(-1)
    few = prompts.rows(torch.stack([lengths.argmin(), lengths.argmax()]))
    why = "its logprobs with static shapes differ from those without"
    try:
        plain, static = Decoder(model, few, num_tokens), StaticDecoder(model, few, num_tokens, Kept(None, Eager()))
        logits, found = plain.read_prompts(), static.read_prompts()
        for _ in range(num_tokens):
            ids = logits.argmax(-1)
            logits, found = plain.read_tokens(ids), static.read_tokens(ids)
            if not agree(found, logits):
                break
        else:
            return True
    except (ValueError, RuntimeError, TypeError, AttributeError, LookupError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
    log.warning("%s is decoded without CUDA graphs: %s", type(model).__name__, why)
    return False


def _padded(index: Tensor, size: int) -> Tensor:
    """Return the index [N] with its last row named again, so that padding is as sound as a row: [size]."""
    return torch.cat((index, index[-1:].expand(size - len(index))))
