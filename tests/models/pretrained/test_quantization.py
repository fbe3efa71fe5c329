"""Tests of rlhf.models.pretrained.quantization: which layers are quantized, in both ways, and what is refused."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from rlhf.errors import ConfigError
from rlhf.models.passes.quantized import LAYERS, QuantizedLinear, quantized_layers, quantized_tensors
from rlhf.models.pretrained.adapters import base_state, load_merged, merged_state
from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.quantization import check_quantizes, check_whole, quantize, what_is_quantized
from rlhf.models.pretrained.setup import make_trainable
from rlhf.models.reference import Reference

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'rlhf-ppo[quantized]'")

KINDS = tuple(LAYERS)
LORA = {"r": 2, "alpha": 4.0, "dropout": 0.0, "target_modules": "all-linear"}
IDS = torch.arange(3, 33).view(2, 15)
FAMILIES = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3"]


@pytest.fixture
def saved(tiny_model, tmp_path):
    """`saved("qwen2")` is the directory of a tiny model."""

    def save(family="llama"):
        tiny_model(family).save_pretrained(tmp_path / family)
        return str(tmp_path / family)

    return save


def adapted(model, *, seed=0):
    """A model with an adapter that changes something."""
    made = make_trainable(model, "", lora=LORA, trainable_layers=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, weight in model.named_parameters():
            if ".lora_B" in name:
                nn.init.normal_(weight, 0.0, 0.3)
    return made


@pytest.mark.sweep(2)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_read_from_files_or_in_memory_the_same_layers_hold_the_same_bytes(saved, tiny_model, family, kind):
    path = saved(family)
    streamed, in_memory = load_causal_lm(path, quantize=kind), load_causal_lm(path)
    quantize(in_memory, kind)
    one, other = dict(quantized_layers(streamed)), dict(quantized_layers(in_memory))
    assert list(one) == list(other) and len(one) == 14
    assert all(map(torch.equal, quantized_tensors(streamed), quantized_tensors(in_memory)))
    rest = dict(tiny_model(family).named_parameters())
    for name, parameter in streamed.named_parameters():
        assert parameter.dtype == torch.float32 and torch.equal(parameter, rest[name])
    assert type(streamed.get_output_embeddings()) is nn.Linear, "the head stays as it is"
    assert torch.equal(streamed(IDS).logits, in_memory(IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_its_logits_are_those_of_a_plain_model_with_the_same_numbers(saved, tiny_model, kind):
    model, plain = load_causal_lm(saved(), quantize=kind), tiny_model()
    exact = plain(IDS).logits
    plain.load_state_dict(base_state(model))
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    assert not torch.allclose(model(IDS).logits, exact, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_and_peft_see_an_ordinary_model(saved, tmp_path, kind):
    model = load_causal_lm(saved(), quantize=kind)
    assert not model.is_quantized if hasattr(model, "is_quantized") else True
    assert getattr(model, "hf_quantizer", None) is None and not hasattr(model.config, "quantization_config")
    model.to(torch.device("cpu"))
    made = adapted(model)
    made.model.save_pretrained(tmp_path / "whole", state_dict=merged_state(model))
    whole = load_causal_lm(str(tmp_path / "whole"))
    torch.testing.assert_close(whole(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_keeps_its_head_and_takes_up_its_merged_weights(saved, kind):
    model = load_scalar_lm(saved(), new_head=True, quantize=kind)
    assert type(model.score) is nn.Linear and len(quantized_layers(model)) == 14
    adapted(model)
    expected, state = model(IDS).logits, merged_state(model)
    assert not any(".scale" in name or ".lora_" in name for name in state)
    made = load_merged(model, state)
    assert len(made) == 14 and not quantized_layers(model)
    torch.testing.assert_close(model(IDS).logits, expected, rtol=1e-4, atol=1e-4)


def test_a_reference_shares_the_quantized_layers_of_an_adapter_that_is_trained_on(saved):
    from rlhf.stage.model import Trainable

    policy = adapted(load_causal_lm(saved(), quantize="nf4"))
    trained = Trainable(model=policy.model, adapter=policy.adapter, source="", continues=True)
    reference = Reference(trained)
    assert reference.model is not policy.model
    ours, theirs = quantized_tensors(policy.model), quantized_tensors(reference.model)
    assert len(ours) == 28 and all(one is other for one, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_that_are_kept_transposed_are_refused(saved, tiny_model, kind):
    for call in (lambda: load_causal_lm(saved("gpt2"), quantize=kind), lambda: quantize(tiny_model("gpt2"), kind)):
        with pytest.raises(ConfigError, match=r"GPT2LMHeadModel keeps its matrices transposed \(Conv1D\)"):
            call()


def test_a_model_without_linear_layers_is_refused(tiny_model):
    model = tiny_model()
    for name, module in list(model.model.named_modules()):
        if type(module) is nn.Linear:
            model.model.set_submodule(name, nn.Identity())
    with pytest.raises(ConfigError, match="has no linear layers to quantize"):
        quantize(model, "nf4")


def test_a_device_that_bitsandbytes_does_not_know_is_refused():
    check_quantizes(torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"bitsandbytes computes on cpu, cuda.*, found vulkan"):
        check_quantizes(torch.device("vulkan"))


def test_a_model_that_others_quantized_is_refused(saved):
    theirs = AutoModelForCausalLM.from_pretrained(
        saved(), quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    )
    with pytest.raises(ConfigError, match="^policy: it is quantized already"):
        check_whole(theirs, "policy")
    check_whole(load_causal_lm(saved(), quantize="nf4"), "policy")


def test_what_is_quantized_is_said_in_numbers(tiny_model):
    model = tiny_model()
    assert what_is_quantized(model) is None
    quantize(model, "nf4")
    # 2 blocks of 32 x 32 (q, o), 16 x 32 (k, v) and 32 x 64 (three): 18,432 of all, with two embeddings of 128 x 32
    # and five norms of 32.
    share = 18432 / (18432 + 2 * 128 * 32 + 5 * 32)
    assert what_is_quantized(model) == f"nf4: 14 linear layers, {share:.0%} of the weights, in 4.5 bits each"


def test_sizes_on_meta_are_those_of_the_quantized_model(tiny_model):
    real, empty = tiny_model(), tiny_model().to("meta")
    for model in (real, empty):
        quantize(model, "int8")
    assert [layer.num_bytes for _, layer in quantized_layers(empty)] == [
        layer.num_bytes for _, layer in quantized_layers(real)
    ]
    assert all(isinstance(layer, QuantizedLinear) for _, layer in quantized_layers(empty))


@pytest.mark.slow
def test_what_bitsandbytes_says_of_kernels_that_are_not_used_reaches_nobody():
    command = [sys.executable, "-c", "from rlhf import PPOTrainer"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""
