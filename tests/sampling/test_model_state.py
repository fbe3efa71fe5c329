"""Tests of rlhf.sampling.model_state: what a captured step depends on."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.checkpointing import use_checkpointing
from rlhf.sampling.cache import make_cache
from rlhf.sampling.model_state import addresses, is_capturable, switches


def capturable(model):
    return is_capturable(model, make_cache(model.config, 1))


@pytest.mark.parametrize(
    ("family", "is_so"),
    [
        *[("llama", True), ("qwen2", True), ("qwen3", True), ("gemma", True)],
        *[("gpt2", False), ("gemma2", False), ("gemma3", False)],
    ],
)
def test_families_with_rotary_positions_and_one_kind_of_layer_are_capturable(tiny_model, family, is_so):
    model = tiny_model(family)
    assert capturable(model) == is_so
    use_short_row_attention(model)
    assert capturable(model) == is_so


@pytest.mark.parametrize(
    ("rope", "is_so"),
    [
        ({"rope_type": "linear", "factor": 2.0}, True),
        ({"rope_type": "dynamic", "factor": 2.0}, False),
    ],
)
def test_positions_that_the_host_must_read_are_not_capturable(tiny_model, rope, is_so):
    assert capturable(tiny_model("llama", rope_parameters={"rope_theta": 1e4, **rope})) == is_so


def test_a_model_with_hooks_or_another_attention_is_not_capturable(tiny_model):
    model = tiny_model("llama")
    handle = model.model.layers[1].mlp.register_forward_pre_hook(lambda *given: None)
    assert not capturable(model)
    handle.remove()
    handle = model.model.register_forward_hook(lambda *given: None)
    assert not capturable(model)
    handle.remove()
    assert capturable(model)
    model.set_attn_implementation("eager")
    assert not capturable(model)


def test_what_is_no_module_is_not_capturable(tiny_model):
    model = tiny_model("llama")
    assert not is_capturable(lambda **given: None, make_cache(model.config, 1))


def test_addresses_change_with_the_memory_of_a_weight_and_not_with_its_numbers(tiny_model):
    model = tiny_model("llama")
    before = addresses(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1.0)
    assert addresses(model) == before
    norm, kept = model.model.norm.weight, model.model.norm.weight.data
    norm.data = kept.clone()
    assert addresses(model) != before
    norm.data = kept
    assert addresses(model) == before
    model.model.norm.some_table = torch.ones(2)  # a tensor that is neither parameter nor buffer
    assert addresses(model) != before


def test_the_same_memory_in_another_form_is_another_address(tiny_model):
    model = tiny_model("llama")
    before, weight = addresses(model), model.model.layers[0].self_attn.o_proj.weight
    assert weight.shape[0] == weight.shape[1]
    weight.data = weight.data.T
    assert addresses(model) != before


def test_switches_tell_adapters_attention_and_replaced_forwards_apart(tiny_model):
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj"])).eval()
    model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"]))
    states = [switches(model)]
    assert switches(model) == states[0]
    with model.disable_adapter():
        states.append(switches(model))
    assert switches(model) == states[0]
    model.set_adapter("other")
    states.append(switches(model))
    model.merge_adapter()
    states.append(switches(model))
    model.get_base_model().set_attn_implementation("eager")
    states.append(switches(model))
    use_checkpointing(model.get_base_model())
    states.append(switches(model))
    assert len(set(states)) == len(states)
