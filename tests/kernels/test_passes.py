"""Tests of rlhf.kernels.passes: values and gradients against slow float64 versions, row by row."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rlhf.kernels.passes import (
    CHUNK,
    LONGEST,
    causal_attention,
    logits_gradient,
    read_logits,
    rms_norm,
    silu_mul,
)

UNITS = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
"""Unit roundoffs."""
DTYPES = pytest.mark.parametrize("dtype", UNITS, ids=str)
LENGTHS = (5, 0, 17, 1, 33)
"""Tokens of the rows of a pack: an empty one, one of one token, and two that fill more than a vector."""
pytestmark = pytest.mark.usefixtures("compiler")


def _random(*shape: int, dtype: torch.dtype, scale: float = 1.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def _with_gradients(function: Callable[..., Tensor], inputs: list[Tensor], *, wide: bool) -> list[Tensor]:
    """The output and the gradients of a weighted sum of it; in float64 if `wide`."""
    leaves = [(each.double() if wide else each.clone()).requires_grad_() for each in inputs]
    output = function(*leaves)
    weight = _random(*output.shape, dtype=torch.float32, seed=9).to(inputs[0].dtype)
    output.backward(weight.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def _close(found: list[Tensor], expected: list[Tensor], units: list[float]) -> None:
    """Each tensor is within so many of its largest numbers."""
    for index, (ours, slow, unit) in enumerate(zip(found, expected, units, strict=True)):
        atol = unit * float(slow.abs().max())
        torch.testing.assert_close(ours.double(), slow, rtol=0, atol=atol, msg=lambda said, at=index: f"{at}: {said}")


def _slow_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


@DTYPES
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (CHUNK + 5, 64), (2 * CHUNK, 577)])
def test_a_norm_and_its_gradients_equal_a_float64_version(dtype: torch.dtype, rows: int, width: int) -> None:
    """A number is rounded twice to the type. Sums are taken in float32, of products that are rounded once.

    A gradient is a difference of two numbers as large as grad * weight / root mean square.
    """
    inputs = [_random(rows, width, dtype=dtype), _random(width, dtype=dtype, seed=1)]
    found = _with_gradients(lambda x, w: rms_norm(x, w, 1e-5), inputs, wide=False)
    expected = _with_gradients(_slow_norm, inputs, wide=True)
    sums, narrow = (width + rows + 20) * UNITS[torch.float32], UNITS[dtype]
    unit, x, weight = sums + 2 * narrow, inputs[0].double(), inputs[1].double()
    grad = _random(rows, width, dtype=torch.float32, seed=9).double().abs().max()
    largest = grad * weight.abs().max() / (x.square().mean(-1) + 1e-5).sqrt().min()
    _close(found, expected, [unit, 2 * unit * float(largest / expected[1].abs().max()), unit])


@DTYPES
def test_a_norm_of_frozen_weight_gives_the_inputs_gradient_alone(dtype: torch.dtype) -> None:
    x, weight = _random(4, 8, dtype=dtype).requires_grad_(), _random(8, dtype=dtype)
    rms_norm(x, weight, 1e-5).float().sum().backward()
    both = [x.detach().clone().requires_grad_(), weight.clone().requires_grad_()]
    rms_norm(both[0], both[1], 1e-5).float().sum().backward()
    assert torch.equal(x.grad, both[0].grad) and weight.grad is None and both[1].grad is not None


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 5, 64)])
def test_a_gate_and_its_gradients_equal_a_float64_version(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """silu and its slope are made of ten float32 steps, then rounded to the type twice."""
    inputs = [_random(*shape, dtype=dtype, scale=3.0), _random(*shape, dtype=dtype, seed=1)]
    found = _with_gradients(silu_mul, inputs, wide=False)
    expected = _with_gradients(lambda gate, up: functional.silu(gate) * up, inputs, wide=True)
    _close(found, expected, [40 * UNITS[torch.float32] + 2.5 * UNITS[dtype]] * 3)


# ------------------------------------------------------------------------------------------------------- attention


def _starts(lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    return functional.pad(torch.tensor(lengths).cumsum(0), (1, 0))


def _rotation(num: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    angles = torch.arange(num)[:, None] * 10.0 ** -torch.linspace(0, 2, width // 2)
    return torch.cat([angles, angles], -1).cos().to(dtype), torch.cat([angles, angles], -1).sin().to(dtype)


def _slow_attention(
    query: Tensor, key: Tensor, value: Tensor, rotation: tuple[Tensor, Tensor], starts: Tensor, scaling: float
) -> Tensor:
    """Row by row and head by head."""
    half, group = query.shape[-1] // 2, query.shape[1] // key.shape[1]

    def turned(x: Tensor) -> Tensor:
        cos, sin = (each.double()[:, None] for each in rotation)
        return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

    queries, keys = turned(query), turned(key)
    rows = []
    for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        later = torch.ones(last - first, last - first, dtype=torch.bool).triu(1)
        heads = []
        for head in range(query.shape[1]):
            scores = scaling * queries[first:last, head] @ keys[first:last, head // group].T
            weights = scores.masked_fill(later, -torch.inf).softmax(-1)
            heads.append(weights @ value[first:last, head // group])
        rows.append(torch.stack(heads, 1))
    return torch.cat(rows)


def _states(dtype: torch.dtype, *, width: int = 8, key_heads: int = 2, group: int = 2, num: int = 56) -> list[Tensor]:
    shapes = (key_heads * group, key_heads, key_heads)
    return [_random(num, heads, width, dtype=dtype, seed=seed) for seed, heads in enumerate(shapes)]


@DTYPES
@pytest.mark.parametrize(("key_heads", "group", "width"), [(1, 1, 2), (2, 1, 8), (1, 3, 64), (3, 3, 64), (2, 4, 20)])
def test_attention_and_its_gradients_equal_a_slow_version(
    dtype: torch.dtype, key_heads: int, group: int, width: int
) -> None:
    """In a narrow type queries, keys, scores, weights and their gradients are rounded, in turn: ten times 8 bits.

    In float32 as many sums of at most 64 numbers, one behind the other.
    """
    inputs, starts, scaling = _states(dtype, key_heads=key_heads, group=group, width=width), _starts(), width**-0.5
    rotation = _rotation(56, width, dtype)
    found = _with_gradients(lambda *each: causal_attention(*each, rotation, (starts, 40), scaling), inputs, wide=False)
    expected = _with_gradients(lambda *each: _slow_attention(*each, rotation, starts, scaling), inputs, wide=True)
    unit = 10 * UNITS[dtype] if dtype == torch.bfloat16 else 10 * 64 * UNITS[dtype]
    _close(found, expected, [unit] * 4)


@DTYPES
def test_rows_that_share_their_positions_attend_as_a_pack_does(dtype: torch.dtype) -> None:
    inputs, starts = _states(dtype), _starts((14,) * 4)
    shared = _rotation(14, 8, dtype)
    repeated = tuple(each.repeat(4, 1) for each in shared)
    one, other = (
        _with_gradients(lambda *each, r=r: causal_attention(*each, r, (starts, 14), 0.3), inputs, wide=False)
        for r in (shared, repeated)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@DTYPES
def test_a_row_does_not_see_another_nor_a_later_token(dtype: torch.dtype) -> None:
    inputs, starts, rotation = _states(dtype), _starts(), _rotation(56, 8, dtype)
    others = [each.clone() for each in inputs]
    for each in others:
        each[:5] = 1e3  # the first row
        each[20] = -1e3  # a token of the third
    before, after = (causal_attention(*each, rotation, (starts, 40), 0.3) for each in (inputs, others))
    assert torch.equal(after[5:20], before[5:20]) and torch.equal(after[22:], before[22:])
    assert bool((after[20:22] != before[20:22]).any(-1).all())


@pytest.mark.parametrize(("longest", "num", "width"), [(LONGEST + 1, 56, 8), (40, 39, 8), (40, 56, 6), (40, 56, 9)])
def test_what_compiled_code_would_misread_is_refused(longest: int, num: int, width: int) -> None:
    states, rotation = _states(torch.float32, width=9 if width == 9 else 8), _rotation(num, 2 * width, torch.float32)
    cut = tuple(each[:, :width] for each in rotation)
    with pytest.raises(ValueError, match=f"rows of up to {longest} tokens do not fit"):
        causal_attention(*states, cut, (_starts(), longest), 0.3)
    with pytest.raises(ValueError, match="contiguous"):
        causal_attention(*_states(torch.float32), _rotation(56, 8, torch.bfloat16), (_starts(), 40), 0.3)


@pytest.mark.parametrize("bounds", [(0, 5, 5, 22, 23, 55), (1, 5, 5, 22, 23, 56), (0, 22, 17, 56), (0, 41, 56)])
def test_rows_that_are_not_the_tokens_are_refused(bounds: tuple[int, ...]) -> None:
    """A token left out, one too many before, a row that ends before it begins, a row that is too long."""
    with pytest.raises(ValueError, match="are not 56 tokens in rows of up to 40"):
        causal_attention(*_states(torch.float32), _rotation(56, 8, torch.float32), (torch.tensor(bounds), 40), 0.3)


def test_shapes_that_do_not_fit_each_other_are_refused() -> None:
    (query, key, value), rotation = _states(torch.float32), _rotation(56, 8, torch.float32)
    for other, match in [
        ((query, key, value[:55]), "keys and values"),
        ((query[:, :3], key, value), "do not fit keys"),
    ]:
        with pytest.raises(ValueError, match=match):
            causal_attention(*other, rotation, (_starts(), 40), 0.3)
    with pytest.raises(ValueError, match=r"a norm's weight: found shape \[8\], expected \[9\]"):
        rms_norm(torch.ones(2, 9), torch.ones(8), 1e-5)
    with pytest.raises(ValueError, match="gate and up"):
        silu_mul(torch.ones(2, 9), torch.ones(2, 8))
    logits, four = torch.ones(4, 9), torch.ones(4)
    with pytest.raises(ValueError, match="targets"):
        read_logits(logits, torch.zeros(3, dtype=torch.int64), 1.0, with_entropy=False)
    with pytest.raises(ValueError, match="one number a row"):
        logits_gradient(logits, torch.zeros(4, dtype=torch.int64), (four, four[:3]), (four, None), 1.0)


def test_a_gradient_of_a_gradient_is_refused_and_not_wrong() -> None:
    states, rotation, x = _states(torch.float32), _rotation(56, 8, torch.float32), _random(4, 8, dtype=torch.float32)
    functions: list[tuple[Callable[..., Tensor], list[Tensor]]] = [
        (lambda *each: causal_attention(*each, rotation, (_starts(), 40), 0.3), states),
        (lambda *each: rms_norm(*each, 1e-5), [x, x[0]]),
        (silu_mul, [x, x]),
    ]
    for function, inputs in functions:
        leaves = [each.clone().requires_grad_() for each in inputs]
        (grad,) = torch.autograd.grad(function(*leaves).square().sum(), leaves[0], create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            grad.sum().backward()


# ---------------------------------------------------------------------------------------------------- vocabulary


def _slow_head(logits: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    log_p = (scale * logits).log_softmax(-1)
    return log_p.gather(-1, targets[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


@DTYPES
@pytest.mark.parametrize("width", [2, 37, 4096])
@pytest.mark.parametrize(("size", "scale"), [(1.0, 1.0), (20.0, 1.25), (1e4, 0.5)])
def test_logprobs_entropies_and_their_gradient_equal_a_float64_version(
    dtype: torch.dtype, width: int, size: float, scale: float
) -> None:
    """A sum of V exponentials in float32, of numbers as large as the largest logit; the gradient is rounded once."""
    logits = _random(6, width, dtype=dtype, scale=size)
    targets = torch.tensor([0, width - 1, width // 2, 0, 1, 1])
    weights = torch.linspace(-1, 2, 6)
    logprobs, entropies, normaliser = read_logits(logits, targets, scale, with_entropy=True)
    grad = logits_gradient(logits.clone(), targets, (entropies, normaliser), (weights, weights.square()), scale)
    wide = logits.double().requires_grad_()
    slow = _slow_head(wide, targets, scale)
    (slow[0] @ weights.double() + slow[1] @ weights.double().square()).backward()
    atol = (width**0.5 + 10) * 4 * UNITS[torch.float32] * max(1.0, scale * float(logits.abs().max()))
    torch.testing.assert_close(logprobs.double(), slow[0].detach(), rtol=0, atol=atol)
    torch.testing.assert_close(entropies.double(), slow[1].detach(), rtol=0, atol=atol)
    largest = float(wide.grad.abs().max())
    torch.testing.assert_close(grad.double(), wide.grad, rtol=0, atol=8 * scale * atol + 2 * UNITS[dtype] * largest)


@DTYPES
@pytest.mark.parametrize("width", [70, 49_152])
def test_without_entropies_logprobs_and_their_gradient_are_the_same(dtype: torch.dtype, width: int) -> None:
    logits, targets, weights = _random(5, width, dtype=dtype), torch.arange(5), torch.linspace(-1, 2, 5)
    with_them, without = (read_logits(logits, targets, 0.7, with_entropy=each) for each in (True, False))
    assert torch.equal(with_them[0], without[0]) and bool((without[1] == 0).all()) and bool((with_them[1] > 0).all())
    zeros = torch.zeros(5)
    both = [logits_gradient(logits.clone(), targets, without[1:], (weights, by), 0.7) for by in (zeros, None)]
    # The target's number is put together in another order.
    torch.testing.assert_close(*both, rtol=2 * UNITS[dtype], atol=0)


def test_a_target_outside_the_vocabulary_is_refused() -> None:
    for target in (-1, 7):
        with pytest.raises(IndexError, match="in a vocabulary of 7"):
            read_logits(torch.zeros(2, 7), torch.tensor([0, target]), 1.0, with_entropy=False)


@DTYPES
def test_what_is_not_finite_is_seen_in_its_row_and_only_there(dtype: torch.dtype) -> None:
    logits = _random(3, 40, dtype=dtype)
    logits[1, 5] = torch.nan
    for found in read_logits(logits, torch.tensor([1, 2, 3]), 1.0, with_entropy=True):
        assert found.isfinite().tolist() == [True, False, True]


@DTYPES
def test_nothing_is_read_from_no_rows(dtype: torch.dtype) -> None:
    none = torch.empty(0, dtype=torch.int64)
    found = read_logits(torch.empty(0, 7, dtype=dtype), none, 1.0, with_entropy=True)
    assert [each.shape for each in found] == [(0,)] * 3
    assert rms_norm(torch.empty(0, 8, dtype=dtype), torch.ones(8, dtype=dtype), 1e-5).shape == (0, 8)
    assert silu_mul(*torch.empty(2, 0, 8, dtype=dtype)).shape == (0, 8)


@DTYPES
def test_neither_threads_nor_kept_gradients_change_a_bit(dtype: torch.dtype, threads: Callable[[int], None]) -> None:
    states, rotation, starts = _states(dtype), _rotation(56, 8, dtype), _starts()
    x, weight = _random(3 * CHUNK + 1, 40, dtype=dtype), _random(40, dtype=dtype, seed=1)
    functions: list[tuple[Callable[..., Tensor], list[Tensor]]] = [
        (lambda *each: causal_attention(*each, rotation, (starts, 40), 0.3), states),
        (lambda *each: rms_norm(*each, 1e-5), [x, weight]),
        (silu_mul, [x, x.flip(0)]),
    ]
    for function, inputs in functions:
        seen = []
        for num in (1, 2, 5):
            threads(num)
            seen.append(_with_gradients(function, inputs, wide=False))
            with torch.no_grad():
                assert torch.equal(function(*inputs), seen[0][0])
        for each in seen[1:]:
            assert all(torch.equal(a, b) for a, b in zip(each, seen[0], strict=True))
