"""Tests of rlhf.models.passes.quantized: the numbers that are kept, their products, and their gradients."""

import copy
import sys

import pytest
import torch
from torch import nn

from rlhf.errors import ConfigError
from rlhf.models.passes.quantized import LAYERS, library, quantized_layers, quantized_tensors

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'rlhf-ppo[quantized]'")

KINDS = tuple(LAYERS)
NORMAL_FLOAT = torch.tensor(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip
"""The 16 values of NF4: Dettmers et al. 2023, arXiv:2305.14314, appendix E."""


def linear(num_in=48, num_out=24, *, bias=True, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(num_in, num_out, bias=bias).requires_grad_(False)


def slow_nf4(weight):
    """Each weight becomes the nearest of 16 values times the largest magnitude of its block of 64."""
    flat, found = weight.flatten(), []
    for block in flat.split(64):
        largest = block.abs().max()
        nearest = (block[:, None] / largest - NORMAL_FLOAT).abs().argmin(1)
        found.append(NORMAL_FLOAT[nearest] * largest)
    return torch.cat(found).view_as(weight)


def slow_int8(weight):
    """Each weight becomes a whole number of 127ths of the largest magnitude of its row."""
    rows = weight.half().float()
    largest = rows.abs().amax(1, keepdim=True)
    return (rows / largest * 127).round() * largest / 127


SLOW = {"nf4": slow_nf4, "int8": slow_int8}


@pytest.mark.parametrize(("num_in", "num_out"), [(48, 24), (64, 10), (5, 7)])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_nearest_numbers_that_the_paper_allows(kind, num_in, num_out):
    plain = linear(num_in, num_out)
    found = LAYERS[kind].quantizing(plain).dequantized(torch.float32)
    torch.testing.assert_close(found, SLOW[kind](plain.weight), rtol=1e-6, atol=1e-7)
    assert not torch.equal(found, plain.weight)


def test_a_block_by_hand():
    plain = linear(64, 1, bias=False)
    plain.weight.zero_()
    plain.weight[0, :4] = torch.tensor([-2.0, 1.0, 0.3, 0.1])  # halves of 2: -1, 0.5, 0.15, 0.05
    expected = [-2.0, 2 * 0.44070982933044434, 2 * 0.16093020141124725, 2 * 0.07958029955625534, 0.0]
    assert LAYERS["nf4"].quantizing(plain).dequantized(torch.float32)[0, :5].tolist() == pytest.approx(expected)
    # 127ths of 2: -127, 63.5 (to the even 64), 19.05, 6.35
    by_eight = [-2.0, 2 * 64 / 127, 2 * 19 / 127, 2 * 6 / 127, 0.0]
    assert LAYERS["int8"].quantizing(plain).dequantized(torch.float32)[0, :5].tolist() == pytest.approx(by_eight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_the_product_is_that_of_a_plain_layer_with_these_numbers(kind, dtype):
    layer = LAYERS[kind].quantizing(linear())
    layer.bias.data = layer.bias.data.to(dtype)
    x = torch.randn(5, 3, 48, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    weight = layer.dequantized(dtype)
    assert weight.dtype == dtype and weight.shape == (24, 48)
    product = layer(x)
    assert torch.equal(product, nn.functional.linear(x, weight, layer.bias))
    upstream = torch.randn(5, 3, 24, generator=torch.Generator().manual_seed(2)).to(dtype)
    product.backward(upstream)
    torch.testing.assert_close(x.grad, upstream @ weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_without_gradients_computes_the_same_and_leaves_the_layer_as_it_was(kind, dtype):
    layer = LAYERS[kind].quantizing(linear(bias=False)).eval()
    before = [tensor.clone() for tensor in quantized_tensors(layer)]
    x = torch.randn(7, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        alone = layer(x)
    assert torch.equal(layer(x.requires_grad_()), alone)
    with torch.no_grad():
        assert torch.equal(layer(x), alone)
    assert all(map(torch.equal, quantized_tensors(layer), before))


@pytest.mark.parametrize(("kind", "bits"), [("nf4", 4 + 32 / 64), ("int8", 8 + 32 / 48)])
def test_what_a_weight_takes_is_the_same_with_and_without_its_numbers(kind, bits):
    layer, empty = LAYERS[kind].quantizing(linear()), LAYERS[kind].on_meta(linear())
    assert 8 * layer.num_bytes / layer.num_weights == bits
    assert [t.shape for t in quantized_tensors(layer)] == [t.shape for t in quantized_tensors(empty)]
    assert [t.dtype for t in quantized_tensors(layer)] == [t.dtype for t in quantized_tensors(empty)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_is_a_parameter_but_its_bias(kind):
    model = nn.Sequential(LAYERS[kind].quantizing(linear()))
    assert [name for name, _ in model.named_parameters()] == ["0.bias"]
    assert [name for name, _ in quantized_layers(model)] == ["0"]
    twin = copy.deepcopy(model)
    assert torch.equal(twin[0].dequantized(torch.float32), model[0].dequantized(torch.float32))


def test_without_bitsandbytes_one_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    library.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"not installed - pip install 'rlhf-ppo\[quantized\]'"):
            library()
    finally:
        library.cache_clear()
