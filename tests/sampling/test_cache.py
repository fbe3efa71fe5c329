"""Tests of rlhf.sampling.cache."""

from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from rlhf.sampling.cache import ReservedLayer, make_cache


def _states(num_rows: int, length: int, seed: int) -> torch.Tensor:
    return torch.randn(num_rows, 2, length, 4, generator=torch.Generator().manual_seed(seed))


def test_a_reserved_layer_holds_what_a_growing_layer_holds() -> None:
    reserved, growing = ReservedLayer(10), DynamicLayer()
    for step, length in enumerate((5, 1, 1)):
        new = _states(3, length, step), _states(3, length, 100 + step)
        for ours, theirs in zip(reserved.update(*new), growing.update(*new), strict=True):
            assert torch.equal(ours, theirs)
        assert reserved.get_seq_length() == growing.get_seq_length()
        assert reserved.get_mask_sizes(1) == growing.get_mask_sizes(1)


def test_rows_that_stay_keep_their_keys_and_values() -> None:
    reserved, growing = ReservedLayer(10), DynamicLayer()
    kept = torch.tensor([0, 2, 3])
    for layer in (reserved, growing):
        layer.update(_states(5, 6, 0), _states(5, 6, 1))
        layer.batch_select_indices(kept)
    new = _states(3, 1, 2), _states(3, 1, 3)
    for ours, theirs in zip(reserved.update(*new), growing.update(*new), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("index", [[2, 0, 2, 1, 0], [1, 1, 0], [2, 1, 0], [1]])
def test_rows_are_copied_in_any_order_and_more_of_them_than_before(index: list[int]) -> None:
    reserved, growing = ReservedLayer(10), DynamicLayer()
    kept = torch.tensor(index)
    for layer in (reserved, growing):
        layer.update(_states(3, 6, 0), _states(3, 6, 1))
        layer.batch_select_indices(kept)
        for step in range(2):  # rows of one source go on apart
            layer.update(_states(len(index), 1, 2 + step), _states(len(index), 1, 4 + step))
        layer.batch_select_indices(torch.arange(len(index)).flip(0))
    assert torch.equal(reserved.keys, growing.keys) and torch.equal(reserved.values, growing.values)
    assert reserved.key_memory.shape[2] == 10


def test_rows_that_leave_need_no_further_memory() -> None:
    layer = ReservedLayer(10)
    first = layer.update(_states(5, 6, 0), _states(5, 6, 1))[0].data_ptr()
    layer.batch_select_indices(torch.tensor([4, 2]))
    assert layer.keys.data_ptr() == first


def test_appending_copies_only_the_new_token() -> None:
    layer = ReservedLayer(10)
    first = layer.update(_states(3, 6, 0), _states(3, 6, 1))[0].data_ptr()
    assert layer.update(_states(3, 1, 0), _states(3, 1, 1))[0].data_ptr() == first


def test_selecting_rows_of_an_empty_layer_does_nothing() -> None:
    layer = ReservedLayer(10)
    layer.batch_select_indices(torch.tensor([0]))
    assert layer.get_seq_length() == 0


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_cache_has_the_layers_of_its_model(tiny_model: Callable[..., PreTrainedModel], family: str) -> None:
    config = tiny_model(family).config
    cache = make_cache(config, 12)
    assert isinstance(cache, DynamicCache)
    kinds = [type(layer) for layer in cache.layers]
    assert kinds == ([DynamicSlidingWindowLayer, ReservedLayer] if family == "gemma3" else [ReservedLayer] * 2)
