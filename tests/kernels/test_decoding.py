"""Tests of rlhf.kernels.decoding: the compiled code against its twins, and both against slow float64 versions."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rlhf.kernels.decoding import Kernels, LayerCache

UNITS = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
"""Unit roundoffs."""
KINDS = {"compiled": True, "plain": False}
DTYPES = pytest.mark.parametrize("dtype", UNITS, ids=str)
BOTH = pytest.mark.parametrize("kind", KINDS)
pytestmark = pytest.mark.usefixtures("compiler")


def _random(*shape: int, dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


@BOTH
@DTYPES
@pytest.mark.parametrize("width", [1, 7, 64, 577])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_norm_equals_a_float64_version(kind: str, dtype: torch.dtype, width: int, scale: float) -> None:
    """The sum of squares is off by at most `width` float32 units, half of that after the root, and five steps follow.

    The normed number and the product are rounded to the type: one unit each.
    """
    x, weight = _random(5, width, dtype=dtype, scale=scale), _random(width, dtype=dtype, seed=1)
    found = Kernels(dtype, compiled=KINDS[kind]).rms_norm(x, weight, 1e-6)
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    rtol = (width / 2 + 5) * UNITS[torch.float32] + 2.01 * UNITS[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=0)


@BOTH
@DTYPES
@pytest.mark.parametrize("width", [1, 7, 64, 577])
def test_the_gate_equals_a_float64_version(kind: str, dtype: torch.dtype, width: int) -> None:
    """exp is off by 2 float32 units of its series, 4 of n ln 2 and 3 of rounding, and by |gate| without fused steps.

    Three steps in float32 follow, and two roundings to the type. Numbers below 1e-36 may become 0.
    """
    gate_up = _random(5, 2 * width, dtype=dtype, scale=20.0)
    found = Kernels(dtype, compiled=KINDS[kind]).silu_mul(gate_up)
    gate, up = gate_up.double().chunk(2, dim=-1)
    expected = gate * gate.sigmoid() * up
    rtol = (12 + gate.abs()) * UNITS[torch.float32] + 2.01 * UNITS[dtype]
    assert bool(((found.double() - expected).abs() <= rtol * expected.abs() + 1e-36).all())


@BOTH
@DTYPES
@pytest.mark.parametrize("gate", [-60.0, -88.5, -104.0, -1e4, -1e30, -3e38, 60.0, 1e4, 3e38])
def test_a_gate_of_any_size_is_open_or_closed(kind: str, dtype: torch.dtype, gate: float) -> None:
    """silu(gate) is gate above 60, and at most 61 e^-60 in size below -60: not gate by some largest exponential."""
    gates = torch.tensor([[gate, 1.0]], dtype=dtype)
    found = float(Kernels(dtype, compiled=KINDS[kind]).silu_mul(gates))
    assert found == float(gates[0, 0]) if gate > 0 else -61 * math.exp(-60) < found <= 0


@BOTH
@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_seen_in_its_row_and_only_there(kind: str, dtype: torch.dtype, bad: float) -> None:
    made = Kernels(dtype, compiled=KINDS[kind])
    x = _random(3, 40, dtype=dtype)
    x[1, 5] = bad
    for found in (made.rms_norm(x, torch.ones(40, dtype=dtype), 1e-6), made.silu_mul(x)):
        assert found.isfinite().all(-1).tolist() == [True, False, True]


# ------------------------------------------------------------------------------------------------------- attention


def _rotation(capacity: int, width: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(capacity)[:, None] * 10.0 ** -torch.linspace(0, 2, width // 2)
    return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def _layer(key_heads: int, width: int, dtype: torch.dtype) -> LayerCache:
    """Three rows in a memory of five, with 0, 4 and 9 columns of padding, about to write column 9 of 12."""
    memory = (5, key_heads, 12, width)
    return LayerCache(
        _random(*memory, dtype=dtype, seed=2),
        _random(*memory, dtype=dtype, seed=3),
        torch.tensor([4, 0, 2]),
        torch.tensor([0, 4, 9]),
        9,
    )


def _copy(layer: LayerCache) -> LayerCache:
    return replace(layer, keys=layer.keys.clone(), values=layer.values.clone())


def _turned(x: Tensor, rotation: tuple[Tensor, Tensor], position: int) -> Tensor:
    """[D] in float64: each pair (x_i, x_{i + D / 2}) as a complex number, times cos + i sin."""
    half = len(x) // 2
    pairs = torch.complex(x[:half].double(), x[half:].double())
    pairs = pairs * torch.complex(rotation[0][position, :half].double(), rotation[1][position, :half].double())
    return torch.cat([pairs.real, pairs.imag])


def _slow_attend(qkv: Tensor, rotation: tuple[Tensor, Tensor], layer: LayerCache, scale: float) -> tuple[Tensor, float]:
    """Head by head in float64; also the largest sum of |scale * q_i * k_i|. Writes the new keys as rounded."""
    key_heads, width = layer.keys.shape[1], layer.keys.shape[3]
    heads, largest, out = qkv.shape[1] // width - 2 * key_heads, 0.0, []
    for row, parts in enumerate(qkv.view(len(qkv), -1, width)):
        slot, first, here = int(layer.slots[row]), int(layer.first[row]), layer.column
        for head in range(key_heads):
            layer.keys[slot, head, here] = _turned(parts[heads + head], rotation, here - first).to(qkv.dtype)
            layer.values[slot, head, here] = parts[heads + key_heads + head]
        for head in range(heads):
            shared = head // (heads // key_heads)
            keys = layer.keys[slot, shared, first : here + 1].double()
            query = scale * _turned(parts[head], rotation, here - first)
            largest = max(largest, float((keys.abs() @ query.abs()).max()))
            out.append((keys @ query).softmax(0) @ layer.values[slot, shared, first : here + 1].double())
    return torch.stack(out).view(len(qkv), -1), largest


@BOTH
@DTYPES
@pytest.mark.parametrize("width", [2, 6, 8, 20, 64, 96, 128])
@pytest.mark.parametrize(("key_heads", "group"), [(2, 1), (1, 3), (2, 2), (3, 4)])
def test_attention_equals_a_slow_version(kind: str, dtype: torch.dtype, width: int, key_heads: int, group: int) -> None:
    """With A the largest sum |q| |k|, a score is off by (D + 3) A float32 units: D products and the turning.

    In a lower type the new key is rounded (A), and in the twin also query and score (A each). Weights are off by twice
    that, by 12 units of exp, by the sum of C weights, and by their own rounding; a mean of values (below 5) by C more
    and by its own rounding.
    """
    qkv, rotation = _random(3, (group + 2) * key_heads * width, dtype=dtype), _rotation(12, width)
    layer = _layer(key_heads, width, dtype)
    found_layer, slow_layer = _copy(layer), _copy(layer)
    found = Kernels(dtype, compiled=KINDS[kind]).attend(qkv, rotation, found_layer, width**-0.5)
    expected, size = _slow_attend(qkv, rotation, slow_layer, width**-0.5)
    narrow, wide = UNITS[dtype], UNITS[torch.float32]
    units = 2 * ((width + 3) * size * wide + 3 * size * narrow) + (12 + 2 * 12) * wide + 2 * narrow
    assert float(layer.values.abs().max()) < 5
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5 * units)
    # The new column: values copied, keys turned (two products and a sum of numbers below 5 each, then rounded).
    assert torch.equal(found_layer.values, slow_layer.values)
    torch.testing.assert_close(found_layer.keys, slow_layer.keys, rtol=2 * narrow, atol=5 * 4 * wide)
    changed = (found_layer.keys != layer.keys).any(-1).any(1).nonzero().tolist()
    assert changed == [[0, 9], [2, 9], [4, 9]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@DTYPES
def test_attention_shows_what_is_not_finite_where_it_is_seen(dtype: torch.dtype, bad: float) -> None:
    made, rotation, qkv = Kernels(dtype), _rotation(12, 8), _random(3, 4 * 2 * 8, dtype=dtype)
    for name in ("keys", "values"):
        layer = _layer(2, 8, dtype)
        expected = made.attend(qkv, rotation, _copy(layer), 0.3)
        memory = getattr(layer, name)
        memory[0, :, :4] = bad  # padding of the second row
        memory[1] = memory[3] = bad  # rows that left
        memory[:, :, 10:] = bad  # columns to come
        assert torch.equal(made.attend(qkv, rotation, _copy(layer), 0.3), expected)
        memory[0, 1, 5] = bad  # seen by the second row's second key head, which has two of its four heads
        found = made.attend(qkv, rotation, layer, 0.3).view(3, 4, 8)
        assert found.isfinite().all(-1).tolist() == [[True] * 4, [True, True, False, False], [True] * 4]


def test_a_nan_whose_bits_rounding_would_carry_over_stays_one() -> None:
    """0x7fffffff plus half a unit of bfloat16 is 0x80007fff, which begins like -0."""
    nan = torch.full((12, 8), 0x7FFFFFFF, dtype=torch.int32).view(torch.float32)
    layer = _layer(2, 8, torch.bfloat16)
    found = Kernels(torch.bfloat16).attend(torch.ones(3, 64, dtype=torch.bfloat16), (nan, torch.zeros(12, 8)), layer, 1)
    assert bool(layer.keys[layer.slots, :, 9].isnan().all()) and bool(found.isnan().all())


@BOTH
@pytest.mark.parametrize("far", [50.0, 500.0, 1e8])
def test_a_key_far_below_the_largest_gets_no_weight(kind: str, far: float) -> None:
    layer = _layer(1, 2, torch.float32)
    layer.keys[:] = torch.tensor([-far, 0.0])
    layer.values[:] = 1e3
    qkv = torch.tensor([[1.0, 0.0, 0.0, 0.0, 7.0, 8.0]]).expand(3, 6)
    still = (torch.ones(12, 2), torch.zeros(12, 2))
    found = Kernels(torch.float32, compiled=KINDS[kind]).attend(qkv, still, layer, 1.0)
    # At most nine others of weight e^-50 and value 1e3: 2e-18, below half a unit of 7.
    assert found.tolist() == [[7.0, 8.0]] * 3


@BOTH
@DTYPES
def test_no_rows_give_no_rows(kind: str, dtype: torch.dtype) -> None:
    made, none = Kernels(dtype, compiled=KINDS[kind]), torch.empty(0, dtype=torch.int64)
    layer = replace(_layer(2, 8, dtype), slots=none, first=none)
    assert made.attend(torch.empty(0, 64, dtype=dtype), _rotation(12, 8), layer, 0.3).shape == (0, 32)
    assert made.rms_norm(torch.empty(0, 8, dtype=dtype), torch.ones(8, dtype=dtype), 1e-6).shape == (0, 8)
    assert made.silu_mul(torch.empty(0, 8, dtype=dtype)).shape == (0, 4)


@DTYPES
def test_inputs_with_gaps_or_gradients_are_read_as_what_they_show(dtype: torch.dtype) -> None:
    made, weight = Kernels(dtype), _random(2 * 64, dtype=dtype, seed=1)[::2]
    rotation, layer = _rotation(12, 8), _layer(2, 8, dtype)
    plain = _random(3, 64, dtype=dtype).requires_grad_()
    for odd in (plain.detach().t().contiguous().t(), plain.detach().repeat(1, 2)[:, :64], plain):
        with torch.no_grad():
            expected = plain.detach()
            assert torch.equal(made.rms_norm(odd, weight, 1e-6), made.rms_norm(expected, weight.contiguous(), 1e-6))
            assert torch.equal(made.silu_mul(odd), made.silu_mul(expected))
            found = made.attend(odd, rotation, _copy(layer), 0.3)
            assert torch.equal(found, made.attend(expected, rotation, _copy(layer), 0.3))


def test_what_compiled_code_would_misread_is_refused() -> None:
    made, ones = Kernels(torch.bfloat16), torch.ones(8)
    with pytest.raises(ValueError, match=r"contiguous torch.bfloat16, found torch.float32"):
        made.rms_norm(ones.bfloat16()[None], ones, 1e-6)
    with pytest.raises(ValueError, match=r"contiguous torch.bfloat16, found torch.int64"):
        made.silu_mul(ones.long()[None])
    layer, qkv = _layer(2, 8, torch.bfloat16), torch.ones(3, 64, dtype=torch.bfloat16)
    for changes, message in (
        ({"slots": layer.slots.int()}, r"contiguous torch.int64, found torch.int32"),
        ({"keys": layer.keys.transpose(1, 2).contiguous().transpose(1, 2)}, r"found torch.bfloat16 with strides"),
        ({"values": layer.values.float()}, r"found torch.float32"),
    ):
        with pytest.raises(ValueError, match=message):
            made.attend(qkv, _rotation(12, 8), replace(layer, **changes), 0.3)


@BOTH
def test_a_column_or_a_row_without_memory_is_refused(kind: str) -> None:
    made, layer = Kernels(torch.float32, compiled=KINDS[kind]), _layer(2, 8, torch.float32)
    before = layer.keys.clone()
    for rows, positions, column in ((3, 12, 12), (3, 9, 9), (4, 12, 9)):
        with pytest.raises(ValueError, match=rf"{rows} tokens at column {column} do not fit 3 rows of 12 columns"):
            made.attend(torch.ones(rows, 64), _rotation(positions, 8), replace(layer, column=column), 0.3)
    assert torch.equal(layer.keys, before)


@DTYPES
def test_the_number_of_threads_changes_nothing(dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    made, x, rotation = Kernels(dtype), _random(3, 4 * 2 * 64, dtype=dtype), _rotation(12, 64)
    seen = []
    for num in (1, 2, 5):
        threads(num)
        layer = _layer(2, 64, dtype)
        seen.append([made.rms_norm(x, x[0], 1e-6), made.silu_mul(x), made.attend(x, rotation, layer, 0.1), layer.keys])
    for others in seen[1:]:
        assert all(torch.equal(found, expected) for found, expected in zip(others, seen[0], strict=True))
