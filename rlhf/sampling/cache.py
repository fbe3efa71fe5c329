"""The key-value cache of a decoding run: reserved once, written in place, and cut down when rows leave."""

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class ReservedLayer(DynamicLayer):
    """Keys and values of one layer, [B, heads, length, D], as views of memory reserved for the final length.

    `DynamicLayer` concatenates, and so copies the whole cache at every token.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Reserve memory in the dtype and on the device of the first keys and values."""
        super().lazy_initialization(key_states, value_states)
        self.key_memory = _reserve(key_states, self.capacity)
        self.value_memory = _reserve(value_states, self.capacity)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, and return those of all positions."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[-2]
        self.key_memory[:, :, start : self.length] = key_states
        self.value_memory[:, :, start : self.length] = value_states
        return self._show()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` [N], copied to the front of the same memory where they fit into it."""
        if self.is_initialized:
            self.key_memory = _keep(self.key_memory, indices, self.length)
            self.value_memory = _keep(self.value_memory, indices, self.length)
            self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = self.key_memory[:, :, : self.length], self.value_memory[:, :, : self.length]
        self.keys, self.values = keys, values
        return keys, values


def make_cache(config: PreTrainedConfig, capacity: int) -> DynamicCache:
    """Return an empty cache for `capacity` tokens a row; sliding layers stay as transformers makes them."""
    cache = DynamicCache(config=config)
    cache.layers = [ReservedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _reserve(states: Tensor, capacity: int) -> Tensor:
    num_rows, num_heads, _, width = states.shape
    return torch.empty(num_rows, num_heads, capacity, width, dtype=states.dtype, device=states.device)


def _keep(memory: Tensor, indices: Tensor, length: int) -> Tensor:
    fits = len(indices) <= len(memory)
    kept = memory[: len(indices)] if fits else memory.new_empty(len(indices), *memory.shape[1:])
    kept[:, :, :length] = memory[indices, :, :length]
    return kept
