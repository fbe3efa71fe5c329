"""Tests of rlhf.models.passes.attention."""

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from rlhf.functional.attention import SHORT_ROWS
from rlhf.models.passes import attention
from rlhf.models.passes.attention import short_row_attention, use_short_row_attention

ROWS, KEY_HEADS, LENGTH, WIDTH = 3, 2, 7, 8
CAUSAL = torch.ones(LENGTH, LENGTH).tril().bool()[None, None]
PADDED = CAUSAL & (torch.arange(LENGTH) >= torch.tensor([0, 2, 5])[:, None])[:, None, None]
"""Rows padded at the left by 0, 2 and 5: the queries there see nothing."""
MASKS = {"none": None, "shared": CAUSAL, "padded": PADDED}


def _inputs(
    group: int, dtype: torch.dtype = torch.float64, *, keys: int = LENGTH, width: int = WIDTH
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"query": (ROWS, KEY_HEADS * group, LENGTH, WIDTH), "key": (ROWS, KEY_HEADS, keys, WIDTH)}
    shapes["value"] = (ROWS, KEY_HEADS, keys, width)
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype).requires_grad_()
        for name, shape in shapes.items()
    }


def _module(group: int, *, is_causal: bool = True) -> Any:
    return SimpleNamespace(num_key_value_groups=group, is_causal=is_causal)


def _seen(mask: Tensor | None) -> Tensor:
    """[B or 1, S, 1, 1]: which queries see anything."""
    return torch.ones(1, LENGTH, 1, 1, dtype=torch.bool) if mask is None else mask.any(-1)[:, 0, :, None, None]


def _with_gradients(attend: Any, inputs: dict[str, Tensor], mask: Tensor | None, group: int) -> list[Tensor]:
    """The output where a query sees something, and the gradients of a weighted sum of it."""
    output = attend(_module(group), *inputs.values(), mask, dropout=0.0, scaling=0.3, is_causal=None)[0]
    output = output * _seen(mask)
    weight = torch.randn(output.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return [output, *torch.autograd.grad((output * weight.to(output.dtype)).sum(), list(inputs.values()))]


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("mask", MASKS)
def test_output_and_gradients_equal_torchs_attention(mask: str, group: int) -> None:
    """Sums of at most 8 * 4 * 7 products of numbers below 10 in float64, a few times: 1e3 * 2^-53 * 100 < 2e-11."""
    inputs = _inputs(group)
    ours = _with_gradients(short_row_attention, inputs, MASKS[mask], group)
    theirs = _with_gradients(sdpa_attention_forward, inputs, MASKS[mask], group)
    for found, expected in zip(ours, theirs, strict=True):
        assert found.shape == expected.shape and found.dtype == torch.float64
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-11)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2.0**-24), (torch.bfloat16, 2.0**-8)])
def test_lower_precision_stays_within_its_roundings(dtype: torch.dtype, unit: float, mask: str) -> None:
    """Against float64 on the same numbers, as root mean squares over all entries.

    Forward: scores are of size 0.3 sqrt(8) = 0.85, at most about 4, and rounded twice (scaled query, product), so
    weights are off by at most 8 units, one more for themselves and one for the output: 10. Backward each of these steps
    has its mirror, and the softmax's gradient subtracts numbers of like size: 10 more.
    """
    inputs = _inputs(2, dtype)
    exact = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    ours = _with_gradients(short_row_attention, inputs, MASKS[mask], 2)
    expected = _with_gradients(sdpa_attention_forward, exact, MASKS[mask], 2)
    for found, exactly, units in zip(ours, expected, (10, 20, 20, 20), strict=True):
        assert float((found.double() - exactly).norm()) < units * unit * float(exactly.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_nothing_yields_no_nan_forward_or_backward(dtype: torch.dtype) -> None:
    inputs = _inputs(2, dtype)
    output, _ = short_row_attention(_module(2), *inputs.values(), PADDED)
    assert not bool(PADDED.any(-1).all())
    gradients = torch.autograd.grad(output.sum(), list(inputs.values()))
    assert all(bool(tensor.isfinite().all()) for tensor in (output, *gradients))


@pytest.mark.parametrize("hidden", [float("inf"), float("nan"), 1e30])
def test_keys_that_no_query_sees_change_nothing(hidden: float) -> None:
    """Scores that are not finite are replaced, not added to."""
    inputs = {name: tensor.detach() for name, tensor in _inputs(2).items()}
    mask = CAUSAL.clone()
    mask[..., 3] = False
    expected = short_row_attention(_module(2), *inputs.values(), mask)[0]
    inputs["key"] = inputs["key"].clone()
    inputs["key"][:, :, 3] = hidden
    assert torch.equal(short_row_attention(_module(2), *inputs.values(), mask)[0], expected)


def test_one_query_sees_all_keys_and_more_keys_than_queries_are_seen_from_the_first() -> None:
    for num_queries, keys in ((1, 5), (3, 5)):
        inputs = {name: tensor.detach() for name, tensor in _inputs(2, keys=keys).items()}
        inputs["query"] = inputs["query"][:, :, :num_queries]
        found = short_row_attention(_module(2), *inputs.values(), None)[0]
        expected = sdpa_attention_forward(_module(2), *inputs.values(), None)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("option", [None, True, False])
@pytest.mark.parametrize("of_module", [True, False])
def test_what_no_mask_means_is_asked_of_the_call_and_then_of_the_module(option: bool | None, of_module: bool) -> None:
    inputs = {name: tensor.detach() for name, tensor in _inputs(2).items()}
    module = _module(2, is_causal=of_module)
    found = short_row_attention(module, *inputs.values(), None, is_causal=option)[0]
    expected = sdpa_attention_forward(module, *inputs.values(), None, is_causal=option)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_values_may_be_of_another_width_than_keys_and_inputs_transposed() -> None:
    inputs = {name: tensor.detach() for name, tensor in _inputs(2, width=5).items()}
    swapped = {name: tensor.transpose(1, 2).contiguous().transpose(1, 2) for name, tensor in inputs.items()}
    assert not swapped["query"].is_contiguous()
    found = short_row_attention(_module(2), *swapped.values(), PADDED)[0]
    expected = sdpa_attention_forward(_module(2), *inputs.values(), PADDED)[0]
    torch.testing.assert_close(found * _seen(PADDED), expected * _seen(PADDED), rtol=0, atol=1e-12)


class _Asked(Exception):
    """Torch's own attention was asked."""


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (CAUSAL.double(), {}),
        (CAUSAL.expand(1, 4, -1, -1), {}),
        (None, {"dropout": 0.1}),
        (None, {"position_bias": torch.zeros(1, 4, LENGTH, LENGTH)}),
        (None, {"s_aux": torch.zeros(4)}),
        (None, {"softcap": 30.0}),
        (None, {"cache": object()}),
    ],
)
def test_what_the_products_do_not_know_goes_to_torch(
    monkeypatch: pytest.MonkeyPatch, mask: Tensor | None, options: dict[str, Any]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise _Asked

    monkeypatch.setattr(attention, "sdpa_attention_forward", refuse)
    inputs = _inputs(2)
    with pytest.raises(_Asked):
        short_row_attention(_module(2), *inputs.values(), mask, **options)
    short_row_attention(_module(2), *inputs.values(), None, dropout=0.0, softcap=None, position_bias=None)


def test_rows_beyond_the_limit_go_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(attention, "LONGEST", LENGTH)
    monkeypatch.setattr(attention, "sdpa_attention_forward", lambda *given, **_: asked.append(given[2].shape[2]))
    short_row_attention(_module(2), *_inputs(2).values(), None)
    short_row_attention(_module(2), *_inputs(2, keys=LENGTH + 1).values(), None)
    assert asked == [LENGTH + 1]


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma3"])
def test_a_model_says_the_same_with_it_with_and_without_padding(
    tiny_model: Any, roundings: ModuleType, family: str
) -> None:
    model = tiny_model(family, attn_implementation="sdpa")
    ids = torch.randint(3, 128, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    given = [{"input_ids": ids}, {"input_ids": ids, "attention_mask": mask, "position_ids": positions}]
    with torch.no_grad():
        expected = [model(**kwargs).logits for kwargs in given]
        use_short_row_attention(model)
        assert model.config._attn_implementation == SHORT_ROWS
        found = [model(**kwargs).logits for kwargs in given]
    atol = roundings.apart(float(expected[0].abs().max()), roundings.of_a_pass(model.config, 12))
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=atol)
    torch.testing.assert_close(found[1][mask.bool()], expected[1][mask.bool()], rtol=0, atol=atol)
    assert not torch.equal(found[0], expected[0]), "the products round otherwise: they were taken"


def test_a_model_with_eager_attention_keeps_it(tiny_model: Any) -> None:
    model = tiny_model("llama", attn_implementation="eager")
    use_short_row_attention(model)
    assert model.config._attn_implementation == "eager"


def test_a_saved_model_does_not_name_it(tiny_model: Any, tmp_path: Any) -> None:
    """Another program that loads the model knows nothing of this attention."""
    model = tiny_model("llama")
    use_short_row_attention(model)
    model.save_pretrained(tmp_path)
    assert SHORT_ROWS not in (tmp_path / "config.json").read_text()
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
