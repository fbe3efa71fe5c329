"""Tests of rlhf.models.passes.checkpointing: less is kept, and every gradient stays as it was, bit for bit."""

import copy

import pytest
import torch
from pydantic import ValidationError

from rlhf.config import SFTSettings
from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import blocks, hidden_states
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.checkpointing import is_checkpointed, use_checkpointing
from rlhf.models.pretrained.setup import make_trainable
from rlhf.sampling.packed import is_packable
from rlhf.training.supervised import switch_dropout

IDS = torch.arange(3, 33).view(2, 15)
LENGTHS = torch.tensor([15, 9])


def gradients(model, lengths=LENGTHS):
    """Return the gradients of all trained weights, and how many numbers were kept for the backward pass."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        loss = hidden_states(model, IDS, lengths).square()[:, :9].sum()
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad(set_to_none=True)
    return found, sum(kept)


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(one[name] is other[name] is None or torch.equal(one[name], other[name]) for name in one)


def test_gradients_are_the_same_and_less_is_kept(tiny_model, family):
    model = tiny_model(family)
    use_short_row_attention(model)
    expected, kept = gradients(model)
    use_checkpointing(model)
    found, kept_now = gradients(model)
    assert_same(found, expected)
    assert is_checkpointed(model) and kept_now < kept / 3


@pytest.mark.parametrize(
    "tuning", [{"lora": {"r": 2, "alpha": 4.0, "dropout": 0.5, "target_modules": "all-linear"}}, {}]
)
def test_adapters_with_dropout_and_frozen_blocks_get_the_same_gradients(tiny_model, tuning):
    torch.manual_seed(0)
    settings = {"lora": None, "trainable_layers": None if tuning else 1}
    model = make_trainable(tiny_model("qwen2"), "", **(settings | tuning)).model
    switch_dropout(model, on=True)
    torch.manual_seed(1)
    expected, _ = gradients(model, None)
    use_checkpointing(model)
    torch.manual_seed(1)
    found, _ = gradients(model, None)
    assert_same(found, expected)


def test_a_frozen_block_runs_once_and_a_trained_one_again(tiny_model):
    model = make_trainable(tiny_model("llama"), "", lora=None, trainable_layers=1).model
    runs = []
    for place, block in enumerate(blocks(model)):
        block.mlp.register_forward_pre_hook(lambda *_, place=place: runs.append(place))
    use_checkpointing(model)
    gradients(model)
    assert sorted(runs) == [0, 1, 1]
    with torch.no_grad():
        hidden_states(model, IDS)
    assert sorted(runs) == [0, 0, 1, 1, 1]


def test_a_copy_runs_its_own_blocks(tiny_model):
    model = tiny_model("llama")
    use_checkpointing(model)
    twin = copy.deepcopy(model)
    before = hidden_states(model, IDS).detach()
    with torch.no_grad():
        blocks(twin)[0].mlp.down_proj.weight.zero_()
    assert torch.equal(hidden_states(model, IDS), before)
    assert not torch.equal(hidden_states(twin, IDS), before)


def test_the_packed_sampler_still_takes_the_model(tiny_model):
    model = tiny_model("llama")
    use_checkpointing(model)
    assert is_packable(model)
    model.model.norm.forward = lambda x: x
    assert not is_packable(model)


def test_compiled_blocks_are_refused(tiny_model):
    given = {"steps": 1, "compile": "on", "model": {"gradient_checkpointing": True}}
    with pytest.raises((ConfigError, ValidationError), match="compile: on and model.gradient_checkpointing exclude"):
        SFTSettings(**given)


def test_a_model_without_known_blocks_is_refused(tiny_model):
    model = tiny_model("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(ConfigError, match="gradient_checkpointing: no stack of blocks found in LlamaForCausalLM"):
        use_checkpointing(model)
