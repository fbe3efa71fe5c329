"""Tests of rlhf.sampling.static_memory."""

import pytest
import torch

from rlhf.sampling.cache import ReservedLayer
from rlhf.sampling.static_memory import BUCKET_STEP, StaticLayer, StaticMemory, bucket_of, capacity_of

HEADS, WIDTH, VOCABULARY = 2, 4, 11


def read(num_rows, length, seed=0):
    """A layer that has read `length` tokens in each row."""
    layer, generator = ReservedLayer(length), torch.Generator().manual_seed(seed)
    layer.update(*(torch.randn(num_rows, HEADS, length, WIDTH, generator=generator) for _ in range(2)))
    return layer


def memory(num_rows, num_slots):
    return StaticMemory([read(1, 1)] * 2, torch.zeros(1, VOCABULARY), num_rows, num_slots)


@pytest.mark.parametrize(
    ("num_rows", "size"),
    [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (16, 16), (17, 32), (64, 64), (65, 80), (512, 512)],
)
def test_a_bucket_is_the_smallest_that_has_room(num_rows, size):
    assert bucket_of(num_rows) == size


def test_buckets_grow_with_the_rows_and_waste_less_than_a_step():
    sizes = [bucket_of(num_rows) for num_rows in range(1, 600)]
    assert sizes == sorted(sizes)
    assert all(0 <= size - num_rows < min(num_rows, BUCKET_STEP) for num_rows, size in enumerate(sizes, 1))


@pytest.mark.parametrize(
    ("length", "capacity"),
    [(1, 64), (64, 64), (65, 96), (96, 96), (97, 128), (129, 192), (193, 256), (640, 768), (769, 1024)],
)
def test_capacities_are_few_and_multiples_of_32(length, capacity):
    assert capacity_of(length) == capacity


def test_at_most_a_third_of_a_capacity_is_unused():
    found = [capacity_of(length) for length in range(64, 5000)]
    assert all(length <= size <= 1.5 * length for length, size in enumerate(found, 64))
    assert len(set(found)) == 14 and all(size % 32 == 0 for size in found)


def test_a_layer_writes_the_column_that_the_place_names_and_returns_all_of_the_same_memory():
    keys, values, place = torch.zeros(3, HEADS, 6, WIDTH), torch.zeros(3, HEADS, 6, WIDTH), torch.tensor([4])
    layer, new = StaticLayer(keys, values, place), torch.ones(3, HEADS, 1, WIDTH)
    found = layer.update(new, 2 * new)
    place.fill_(1)
    layer.update(3 * new, 4 * new)
    assert [each.data_ptr() for each in found] == [keys.data_ptr(), values.data_ptr()]
    assert keys[0, 0, :, 0].tolist() == [0, 3, 0, 0, 1, 0] and values[0, 0, :, 0].tolist() == [0, 4, 0, 0, 2, 0]


def test_a_filled_bucket_continues_its_prompts_and_hides_padding_and_what_is_to_come():
    bucket = memory(4, 4 * 64).bucket(4, 64)
    for states in (*bucket.keys, *bucket.values):
        states.fill_(float("nan"))
    layers, sources = [read(2, 5, seed) for seed in (1, 2)], torch.tensor([1, 0, 0, 0])
    bucket.fill(layers, sources, torch.tensor([0, 3]), 5)
    for keys, values, layer in zip(bucket.keys, bucket.values, layers, strict=True):
        assert torch.equal(keys[:, :, :5], layer.keys[sources]) and torch.equal(values[:, :, :5], layer.values[sources])
        assert not keys[:, :, 5:].any() and not values[:, :, 5:].any()  # NaN is true
    bucket.place.add_(1)
    visible = bucket.visible()
    assert visible.shape == (4, 1, 1, 64)
    assert [row.nonzero()[:, 0].tolist() for row in visible[:2, 0, 0]] == [[3, 4, 5], [0, 1, 2, 3, 4, 5]]


def test_rows_that_stay_move_to_the_front_of_the_same_memory():
    whole = memory(8, 8 * 64)
    before = whole.bucket(8, 64)
    layers = [read(8, 5, seed) for seed in (1, 2)]
    before.fill(layers, torch.arange(8), torch.arange(8) % 3, 5)
    after, rows = whole.bucket(2, 64), torch.tensor([5, 0])
    after.take(before, rows, 5)
    assert after.size == (2, 64) and after.keys[1].data_ptr() == before.keys[1].data_ptr()
    for keys, values, layer in zip(after.keys, after.values, layers, strict=True):
        assert torch.equal(keys[:, :, :5], layer.keys[rows]) and torch.equal(values[:, :, :5], layer.values[rows])
        assert not keys[:, :, 5:].any()
    assert after.starts.tolist() == [[2], [0]]


def test_buckets_of_any_shape_are_cut_from_the_same_memory_while_they_fit():
    whole = memory(8, 8 * 64)
    wide, long = whole.bucket(8, 64), whole.bucket(2, 256)
    assert wide.keys[0].data_ptr() == long.keys[0].data_ptr() and wide.place is long.place
    assert long.keys[0].shape == (2, HEADS, 256, WIDTH) and long.logits.shape == (2, VOCABULARY)
    assert whole.fits(4, 128) and not whole.fits(4, 192) and not whole.fits(16, 32)
    owned = {tensor.untyped_storage().data_ptr() for tensor in whole.tensors}
    parts = (wide.ids, wide.starts, wide.place, wide.columns, wide.logits, *wide.keys, *wide.values)
    assert {part.untyped_storage().data_ptr() for part in parts} == owned
