"""Tests of rlhf.models.passes.packing."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlhf.errors import ConfigError
from rlhf.models.passes import attention
from rlhf.models.passes.anatomy import blocks, hidden_states
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.frozen import split_trunk
from rlhf.models.passes.packing import choose_packing, is_packable, packs, use_packing

Factory = Callable[..., PreTrainedModel]
LENGTHS = torch.tensor([14, 1, 9, 5])
"""Longer than the window of the sliding layers, 8."""
NUM_TOKENS = int(LENGTHS.sum())
IS_REAL = torch.arange(14) < LENGTHS[:, None]
PACKING = ["gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma3"]


def _ids(seed: int = 1) -> Tensor:
    return torch.randint(3, 128, (4, 14), generator=torch.Generator().manual_seed(seed))


def _ready(model: PreTrainedModel) -> PreTrainedModel:
    use_short_row_attention(model)
    return model


@torch.no_grad()
def _rows_alone(model: PreTrainedModel) -> Tensor:
    rows = zip(_ids(), LENGTHS, strict=True)
    return torch.cat([hidden_states(model, row[None, :length])[0] for row, length in rows])


@pytest.mark.parametrize("family", PACKING)
def test_packed_rows_get_the_states_that_each_has_alone(
    tiny_model: Factory, roundings: ModuleType, family: str
) -> None:
    """In float64, where states are below 100 in size and one pass rounds of_a_pass times."""
    model = _ready(tiny_model(family).double())
    assert packs(model)
    with torch.no_grad():
        packed = hidden_states(model, _ids(), LENGTHS)[IS_REAL]
    atol = roundings.apart(100.0, roundings.of_a_pass(model.config, 14), torch.float64)
    torch.testing.assert_close(packed, _rows_alone(model), rtol=0, atol=atol)


@pytest.mark.parametrize("family", PACKING)
def test_no_row_sees_another_one(tiny_model: Factory, family: str) -> None:
    model, others = _ready(tiny_model(family)), _ids(2)
    others[2] = _ids()[2]
    with torch.no_grad():
        found, beside_others = (hidden_states(model, ids, LENGTHS) for ids in (_ids(), others))
    assert torch.equal(found[2, :9], beside_others[2, :9])
    assert not torch.equal(found[0], beside_others[0])


def test_padding_is_not_computed(tiny_model: Factory) -> None:
    model, seen = _ready(tiny_model("llama")), []
    blocks(model)[0].mlp.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))  # type: ignore[union-attr,operator]
    hidden_states(model, _ids(), LENGTHS)
    hidden_states(model, _ids(), torch.full((4,), 14))
    assert seen == [(1, NUM_TOKENS, 32), (4, 14, 32)], "rows of equal length have no padding, and stay as they are"


@pytest.mark.parametrize("longest", [512, 8])
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}, {"num_key_value_heads": 4}], ids=str)
def test_gradients_are_those_of_padded_rows(
    tiny_model: Factory, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], longest: int
) -> None:
    """In float64, for plain products and for torch's attention (rows longer than `LONGEST`)."""
    monkeypatch.setattr(attention, "LONGEST", longest)
    model = _ready(tiny_model("llama", **changes).double())
    weight = (
        torch.randn(4, 14, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) * IS_REAL[..., None]
    )

    def gradients(lengths: Tensor | None) -> dict[str, Tensor]:
        model.zero_grad()
        (hidden_states(model, _ids(), lengths) * weight).sum().backward()
        return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}

    packed, padded = gradients(LENGTHS), gradients(None)
    assert packed.keys() == padded.keys() and any(bool(each.any()) for each in packed.values())
    for name, expected in padded.items():
        torch.testing.assert_close(packed[name], expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_a_split_trunk_packs_bit_for_bit_as_the_whole_one(tiny_model: Factory) -> None:
    model = _ready(tiny_model("llama", num_hidden_layers=4))
    split = split_trunk(model, 2)
    assert split is not None
    with torch.no_grad():
        whole = hidden_states(model, _ids(), LENGTHS)
        parts = split.hidden_states(split.frozen_states(_ids(), LENGTHS), LENGTHS)
    assert torch.equal(parts[IS_REAL], whole[IS_REAL])
    assert not torch.equal(whole, hidden_states(model, _ids())), "in padding a packed pass says something else"


class _Mixing(nn.Module):
    """Adds to each state very little of the one before it, as a convolution over the sequence does."""

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + 1e-5 * hidden.roll(1, dims=1) * (torch.arange(hidden.shape[1]) > 0)[:, None]


def _mixing(model: PreTrainedModel) -> None:
    blocks(model)[0].mlp = nn.Sequential(_Mixing(), blocks(model)[0].mlp)  # type: ignore[arg-type]


def _without_positions(model: PreTrainedModel) -> None:
    def forgets(_: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        return args, {**options, "position_ids": None}

    model.base_model.register_forward_pre_hook(forgets, with_kwargs=True)


def _deaf(model: PreTrainedModel) -> None:
    def forgets(_: nn.Module, args: Any, options: dict[str, Any]) -> Any:
        return args, {name: value for name, value in options.items() if name != "packing"}

    for block in blocks(model):
        block.register_forward_pre_hook(forgets, with_kwargs=True)


@pytest.mark.parametrize("changed", [_mixing, _without_positions, _deaf])
def test_a_model_in_which_rows_would_meet_or_lose_their_positions_is_padded(
    tiny_model: Factory, changed: Callable[[PreTrainedModel], None]
) -> None:
    """GPT-2 learns its positions, so a wrong one shows."""
    model = tiny_model("gpt2")
    changed(model)
    _ready(model)
    assert not packs(model) and not is_packable(model)
    with torch.no_grad():
        assert torch.equal(hidden_states(model, _ids(), LENGTHS), hidden_states(model, _ids()))


def test_another_attention_than_ours_is_padded(tiny_model: Factory) -> None:
    assert not packs(_ready(tiny_model("llama", attn_implementation="eager")))


def test_the_choice_of_the_configuration_is_followed(tiny_model: Factory) -> None:
    model = _ready(tiny_model("llama"))
    for choice, expected in (("off", False), ("on", True), ("auto", True)):
        assert choose_packing(model, choice, is_possible=True) is None  # type: ignore[arg-type]
        assert packs(model) is expected, choice


def test_auto_packs_on_a_cpu_only(tiny_model: Factory) -> None:
    model = _ready(tiny_model("llama")).to("meta")
    assert not packs(model)
    use_packing(model, "everywhere")
    assert packs(model)


def test_where_it_is_not_possible_auto_says_why_and_on_is_refused(tiny_model: Factory) -> None:
    model = _ready(tiny_model("llama"))
    why = "LlamaForCausalLM computes its attention or its positions in a way that does not allow it"
    said = choose_packing(model, "auto", is_possible=False)
    assert said == f"rows of unequal length are padded, not packed: {why}" and not packs(model)
    assert choose_packing(model, "off", is_possible=False) is None
    with pytest.raises(ConfigError, match=f"^packing: on, but {why} - set packing: auto$"):
        choose_packing(model, "on", is_possible=False)
