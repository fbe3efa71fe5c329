"""A causal language model that reads prompts once and then one token per row at a time, with a key-value cache."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from rlhf.batches import PromptBatch, sent
from rlhf.functional.attention import SHORT_ROWS
from rlhf.sampling.cache import ReservedLayer, make_cache


class Decoder:
    """The rows that are still being generated: their cache, their padding and their next position."""

    def __init__(self, model: Callable[..., Any], prompts: PromptBatch, max_new_tokens: int) -> None:
        """Prepare `prompts`, which must be on the model's device, for at most `max_new_tokens` further tokens."""
        self._model = model
        self._only_last = {"logits_to_keep": 1} if _takes_logits_to_keep(model) else {}
        distinct, self._sources = distinct_prompts(prompts)
        self._prompt_ids, prompt_mask = left_padded(distinct)
        self._length = prompt_mask.shape[1]
        self._cache = make_cache(getattr(model, "config"), self._length + max_new_tokens)  # noqa: B009
        # With prompts of one length there is nothing to mask, and attention runs its faster unmasked kernel.
        self._mask: Tensor | None = None
        if not bool(prompt_mask.all()):
            self._mask = torch.nn.functional.pad(prompt_mask, (0, max_new_tokens), value=True)
            self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._prepares_masks = self._prompt_ids.device.type == "cuda" and takes_prepared_masks(model, self._cache)

    def read_prompts(self) -> Tensor:
        """Run the model over the prompts and return the logits [B, V] of the first response token."""
        logits = self._forward(self._prompt_ids, 0)
        if len(self._sources) == len(self._prompt_ids):
            return logits
        self.keep_rows(self._sources)
        return logits[self._sources]

    def read_tokens(self, ids: Tensor) -> Tensor:
        """Append the tokens `ids` [B] and return the logits [B, V] of the ones that follow."""
        self._length += 1
        return self._forward(ids[:, None], self._length - 1)

    def keep_rows(self, index: Tensor) -> None:
        """Keep only the rows `index` [N] in the batch; a row named twice is copied."""
        self._cache.batch_select_indices(index)
        if self._mask is not None:
            self._mask, self._positions = self._mask[index], self._positions[index]

    def _forward(self, ids: Tensor, start: int) -> Tensor:
        padding = {}
        if self._mask is not None:
            visible = self._mask[:, : self._length]
            is_token = ids.shape[1] == 1 and start > 0
            padding["attention_mask"] = visible[:, None, None] if is_token and self._prepares_masks else visible
            padding["position_ids"] = self._positions[:, start : self._length]
        output = self._model(
            input_ids=ids, past_key_values=self._cache, use_cache=True, return_dict=True, **padding, **self._only_last
        )
        logits: Tensor = output.logits
        return logits[:, -1]


def distinct_prompts(prompts: PromptBatch) -> tuple[PromptBatch, Tensor]:
    """Find equal prompts, so that several samples of one prompt read it once.

    Returns:
        The different prompts in the order in which they first appear, and the index [B] int64 of each row in them; the
        batch itself when all differ.
    """
    ids = prompts.prompt_ids.masked_fill(~prompts.prompt_mask, -1).tolist()
    places: dict[tuple[int, ...], int] = {}
    sources = [places.setdefault(tuple(row), len(places)) for row in ids]
    index = sent(torch.tensor(sources), prompts.prompt_ids.device)
    if len(places) == len(ids):
        return prompts, index
    return prompts.rows(torch.tensor([sources.index(place) for place in range(len(places))])), index


def left_padded(prompts: PromptBatch) -> tuple[Tensor, Tensor]:
    """Move the padding of right-padded prompts to the left, so that every row ends at the same position.

    Columns that are padding in every row are dropped.

    Returns:
        The ids [B, P'] int64 with 0 where padded, and the mask [B, P'] bool; P' is the longest prompt.
    """
    lengths = prompts.prompt_mask.sum(-1, keepdim=True)
    longest = int(lengths.max())
    source = torch.arange(longest, device=lengths.device) - (longest - lengths)
    mask = source >= 0
    ids = prompts.prompt_ids.gather(1, source.clamp(min=0)).masked_fill(~mask, 0)
    return ids, mask


def takes_prepared_masks(model: Callable[..., Any], cache: DynamicCache) -> bool:
    """Whether all layers of a model read the same mask [B, 1, 1, K] as it is.

    From a mask [B, K] transformers makes one for each step, and asks the device each time whether all of it is True.
    Some models read more from such a mask, as positions (ALiBi) or states: those with rotary positions and one cache
    for all layers do not.
    """
    config = getattr(model, "config")  # noqa: B009
    is_plain = bool(getattr(config, "rope_parameters", None)) and not getattr(config, "alibi", False)
    attends_by_torch = getattr(config, "_attn_implementation", None) in ("sdpa", SHORT_ROWS)
    return is_plain and attends_by_torch and all(type(layer) is ReservedLayer for layer in cache.layers)


def _takes_logits_to_keep(model: Callable[..., Any]) -> bool:
    # An adapter model (peft) accepts any argument and passes it on, so look at the model inside.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(getattr(inner, "forward", inner)).parameters
