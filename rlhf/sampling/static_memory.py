"""Memory of decoding that stays where it is: what one step reads and writes, whichever token it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from rlhf.sampling.cache import ReservedLayer

SMALL_BUCKETS = (1, 2, 4, 8)
BUCKET_STEP = 16
"""Beyond the small ones a bucket is a multiple of it, as in nano-vllm's `capture_cudagraph`."""
LARGEST_BUCKET = 512
"""Rows of a step from which its kernels take longer than the host takes to start them."""
SMALLEST_CAPACITY = 64


def bucket_of(num_rows: int) -> int:
    """Return for how many rows a step is computed that has `num_rows`: 1, 2, 4, 8, or the next multiple of 16."""
    fitting = [size for size in SMALL_BUCKETS if size >= num_rows]
    return fitting[0] if fitting else -(-num_rows // BUCKET_STEP) * BUCKET_STEP


def capacity_of(length: int) -> int:
    """Return for how many tokens a row is computed that may reach `length`: the next 2^k or 3 * 2^k, at least 64.

    Batches whose longest prompts differ thus share a few capacities, and at most a third of a row's tokens is unused,
    but for short rows.
    """
    power = SMALLEST_CAPACITY
    while power < length:
        if length <= power * 3 // 2:
            return power * 3 // 2
        power *= 2
    return power


class StaticLayer(DynamicLayer):
    """Keys and values of one layer, [B, heads, K, D], of which a step writes one column and returns all."""

    def __init__(self, keys: Tensor, values: Tensor, place: Tensor) -> None:
        """Take the memory, and where in it, [1] int64 on its device, the next token goes."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.keys, self.values, self.is_initialized = keys, values, True
        self._memory = keys, values
        self._place = place

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values [B, heads, 1, D] of one token, and return those of all K columns."""
        keys, values = self._memory
        return keys.index_copy_(2, self._place, key_states), values.index_copy_(2, self._place, value_states)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The memory of a step of B rows with K tokens each; rows beyond those that are decoded are padding."""

    ids: Tensor
    """[B, 1] int64, the tokens that the step reads."""
    starts: Tensor
    """[B, 1] int64, the column of each row's first token; those before are padding."""
    place: Tensor
    """[1] int64, the column of the tokens that the step reads."""
    columns: Tensor
    """[K] int64, 0 to K - 1."""
    logits: Tensor
    """[B, V], what the step writes."""
    keys: Sequence[Tensor]
    """[B, heads, K, D] of each layer."""
    values: Sequence[Tensor]
    """[B, heads, K, E] of each layer."""

    @property
    def size(self) -> tuple[int, int]:
        """B and K."""
        return len(self.ids), len(self.columns)

    def cache(self) -> DynamicCache:
        """Return the keys and values as a model takes them; the host's part of it does not change from step to step."""
        cache = DynamicCache()
        pairs = zip(self.keys, self.values, strict=True)
        cache.layers = [StaticLayer(keys, values, self.place) for keys, values in pairs]
        return cache

    def visible(self) -> Tensor:
        """Return the mask [B, 1, 1, K] of the columns that hold a token, the one that is read included."""
        return ((self.columns >= self.starts) & (self.columns <= self.place))[:, None, None]

    def fill(self, layers: Sequence[ReservedLayer], sources: Tensor, starts: Tensor, length: int) -> None:
        """Begin with prompts that were read.

        Args:
            layers: of the cache that read them, [N, heads, length, D].
            sources: [B] int64, which of the N prompts each row continues.
            starts: [N] int64, where in its row each prompt begins.
            length: columns that the prompts take.
        """
        self.place.fill_(length - 1)
        self.starts.copy_(starts[sources, None])
        for layer, keys, values in zip(layers, self.keys, self.values, strict=True):
            for memory, read in ((keys, layer.keys), (values, layer.values)):
                assert read is not None
                memory[:, :, :length] = read[sources]
                # A hidden column counts 0 times, but 0 times what an earlier batch may have left there, NaN, is NaN.
                memory[:, :, length:] = 0

    def take(self, other: "Bucket", rows: Tensor, length: int) -> None:
        """Continue with the rows [B] int64 of a bucket that lies over this one; `length` columns of it hold tokens."""
        self.starts.copy_(other.starts[rows])
        for memory, before in zip((*self.keys, *self.values), (*other.keys, *other.values), strict=True):
            memory[:, :, :length] = before[rows, :, :length]


class StaticMemory:
    """What buckets of any size are cut from: they lie over each other, so one of them is in use at a time."""

    def __init__(self, layers: Sequence[ReservedLayer], logits: Tensor, num_rows: int, num_slots: int) -> None:
        """Reserve memory.

        Args:
            layers: of a cache that has read something: heads, widths and types are theirs.
            logits: [N, V] that the model gave.
            num_rows: rows of the largest bucket.
            num_slots: tokens of all rows of a bucket together.
        """
        self.num_rows, self.num_slots = num_rows, num_slots
        self._ids = torch.zeros(num_rows, 1, dtype=torch.int64, device=logits.device)
        self._starts = torch.zeros_like(self._ids)
        self._place = torch.zeros(1, dtype=torch.int64, device=logits.device)
        self._columns = torch.arange(num_slots, device=logits.device)
        self._logits = logits.new_zeros(num_rows, logits.shape[1])
        self._shapes = [[(states.shape[1], states.shape[3]) for states in _states(layer)] for layer in layers]
        self._states = [
            [states.new_zeros(num_slots * states.shape[1] * states.shape[3]) for states in _states(layer)]
            for layer in layers
        ]

    @property
    def tensors(self) -> list[Tensor]:
        """All of it."""
        states = [part for pair in self._states for part in pair]
        return [self._ids, self._starts, self._place, self._columns, self._logits, *states]

    def fits(self, num_rows: int, capacity: int) -> bool:
        """Whether a bucket of that size can be cut from it."""
        return num_rows <= self.num_rows and num_rows * capacity <= self.num_slots

    def bucket(self, num_rows: int, capacity: int) -> Bucket:
        """Return the bucket of that size; one of the same capacity and fewer rows has the first rows of it."""
        assert self.fits(num_rows, capacity)
        keys, values = (
            [
                pair[which][: num_rows * capacity * heads * width].view(num_rows, heads, capacity, width)
                for pair, (heads, width) in zip(self._states, [shapes[which] for shapes in self._shapes], strict=True)
            ]
            for which in (0, 1)
        )
        return Bucket(
            ids=self._ids[:num_rows],
            starts=self._starts[:num_rows],
            place=self._place,
            columns=self._columns[:capacity],
            logits=self._logits[:num_rows],
            keys=keys,
            values=values,
        )


def _states(layer: ReservedLayer) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None and layer.values is not None
    return layer.keys, layer.values
