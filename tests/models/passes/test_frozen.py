"""Tests of rlhf.models.passes.frozen."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.frozen import num_frozen_blocks, split_trunk
from rlhf.models.policy import PolicyWithValueHead
from rlhf.models.pretrained.depth import freeze_all_but_top
from rlhf.models.pretrained.setup import make_trainable
from rlhf.training.sharding.master_weights import MasterWeights

Factory = Callable[..., PreTrainedModel]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


def _ids() -> torch.Tensor:
    return torch.randint(3, 128, (3, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.sweep(4)
@DTYPES
@pytest.mark.parametrize("num_frozen", [1, 2, 3])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma"])
def test_both_parts_after_each_other_are_the_trunk_bit_for_bit(
    tiny_model: Factory, family: str, num_frozen: int, dtype: torch.dtype
) -> None:
    model = tiny_model(family, num_hidden_layers=4).to(dtype)
    use_short_row_attention(model)
    split = split_trunk(model, num_frozen)
    assert split is not None
    states = split.frozen_states(_ids())
    assert torch.equal(split.hidden_states(states), hidden_states(model, _ids()))
    with torch.no_grad():
        said = model(input_ids=_ids(), use_cache=False, output_hidden_states=True)
    assert torch.equal(states, said.hidden_states[num_frozen])


@DTYPES
def test_the_gradient_of_the_trained_part_is_that_of_the_trunk_bit_for_bit(
    tiny_model: Factory, dtype: torch.dtype
) -> None:
    model = tiny_model("llama", num_hidden_layers=4).to(dtype)
    freeze_all_but_top(model, 2)
    split = split_trunk(model, num_frozen_blocks(model))
    assert split is not None and num_frozen_blocks(model) == 2
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    weight = torch.randn(3, 40, 32, generator=torch.Generator().manual_seed(2)).to(dtype)

    def gradients(hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad((hidden * weight).sum(), list(trained.values()), allow_unused=True)

    states = split.frozen_states(_ids())
    assert not states.requires_grad
    found, expected = gradients(split.hidden_states(states)), gradients(hidden_states(model, _ids()))
    for name, ours, theirs in zip(trained, found, expected, strict=True):
        assert (ours is None) == (theirs is None) == ("lm_head" in name), name
        assert ours is None or (torch.equal(ours, theirs) and bool(ours.any())), name


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("gpt2", {}),
        ("gemma2", {}),
        ("gemma3", {}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}),
    ],
)
def test_a_model_that_adds_to_every_input_or_mixes_blocks_is_not_cut(
    tiny_model: Factory, family: str, changes: dict[str, Any]
) -> None:
    """gpt2 adds positions; of the others one block looks back over its window, which no short input shows."""
    assert split_trunk(tiny_model(family, **changes), 1) is None


def test_nothing_frozen_is_nothing_to_cut(tiny_model: Factory) -> None:
    assert split_trunk(tiny_model("llama"), 0) is None


def test_frozen_states_carry_no_graph_even_of_weights_that_could_be_trained(tiny_model: Factory) -> None:
    split = split_trunk(tiny_model("llama"), 1)
    assert split is not None
    states = split.frozen_states(_ids())
    assert not states.requires_grad and split.hidden_states(states).requires_grad


def test_frozen_blocks_are_counted_up_to_the_first_that_is_trained(tiny_model: Factory) -> None:
    model = tiny_model("llama", num_hidden_layers=4)
    assert num_frozen_blocks(model) == 0
    freeze_all_but_top(model, 1)
    assert num_frozen_blocks(model) == 3
    next(model.model.layers[1].mlp.parameters()).requires_grad_(True)
    assert num_frozen_blocks(model) == 1
    model.get_input_embeddings().requires_grad_(True)
    assert num_frozen_blocks(model) == 0
    model.requires_grad_(False)
    assert num_frozen_blocks(model) == 0
    adapted = make_trainable(
        tiny_model("llama"), "nowhere", lora={"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"},
        trainable_layers=None,
    )  # fmt: skip
    assert num_frozen_blocks(adapted.model) == 0


def test_cutting_leaves_the_model_as_it_was_and_copies_no_weights(tiny_model: Factory) -> None:
    model = tiny_model("llama", num_hidden_layers=4)
    names, before = list(model.state_dict()), hidden_states(model, _ids())
    split = split_trunk(model, 3)
    assert split is not None
    assert list(model.state_dict()) == names and torch.equal(hidden_states(model, _ids()), before)
    ours = {id(parameter) for part in (split.frozen, split.trained) for parameter in part.parameters()}
    assert ours == {id(parameter) for parameter in model.model.parameters()}
    assert [len(part.layers) for part in (split.frozen, split.trained)] == [3, 1]  # type: ignore[arg-type]


def _cast(model: PreTrainedModel) -> None:
    model.to(torch.bfloat16)


def _stir(model: PreTrainedModel) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)


def _load(model: PreTrainedModel) -> None:
    model.load_state_dict({name: 0.9 * weight for name, weight in model.state_dict().items()})


@pytest.mark.parametrize("change", [_cast, _stir, _load])
def test_the_parts_follow_the_model(tiny_model: Factory, change: Callable[[PreTrainedModel], None]) -> None:
    model = tiny_model("llama", num_hidden_layers=3)
    split = split_trunk(model, 2)
    assert split is not None
    before = split.hidden_states(split.frozen_states(_ids()))
    change(model)
    after = split.hidden_states(split.frozen_states(_ids()))
    assert torch.equal(after, hidden_states(model, _ids())) and not torch.equal(after, before)


def test_a_copied_policy_cuts_its_own_trunk(tiny_model: Factory) -> None:
    model = tiny_model("llama")
    freeze_all_but_top(model, 1)
    policy = PolicyWithValueHead(model)
    twin = copy.deepcopy(policy)
    assert policy._split is not None and twin._split is not None
    _stir(twin.lm)
    states = twin._split.frozen_states(_ids())
    assert torch.equal(twin._split.hidden_states(states), hidden_states(twin.lm, _ids()))
    assert torch.equal(policy._split.frozen_states(_ids()), split_trunk(model, 1).frozen_states(_ids()))  # type: ignore[union-attr]
    assert set(twin.state_dict()) == set(policy.state_dict()) == {*_prefixed(model), *_head(policy)}


def _prefixed(model: PreTrainedModel) -> list[str]:
    return [f"lm.{name}" for name in model.state_dict()]


def _head(policy: Any) -> list[str]:
    return [f"value_head.{name}" for name in policy.value_head.state_dict()]


def test_master_weights_reach_the_trained_part(tiny_model: Factory) -> None:
    model = tiny_model("llama")
    freeze_all_but_top(model, 1)
    policy = PolicyWithValueHead(model)
    weights = MasterWeights(policy, torch.bfloat16, keep_float32=[policy.value_head])
    split = policy._split
    assert split is not None
    states = split.frozen_states(_ids())
    before = split.hidden_states(states)
    assert states.dtype == torch.bfloat16
    with torch.no_grad():
        for master in weights.masters.values():
            master.mul_(1.2)
    weights.publish()
    assert torch.equal(split.frozen_states(_ids()), states), "frozen blocks stay"
    assert torch.equal(split.hidden_states(states), hidden_states(model, _ids()))
    assert not torch.equal(split.hidden_states(states), before)
