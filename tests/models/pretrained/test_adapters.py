"""Adapters: what lies beneath, and the sum."""

import json
import warnings

import pytest
import torch

from rlhf.errors import ConfigError
from rlhf.models.pretrained.adapters import add_lora, base_of, base_state, merged_state, trained_head
from rlhf.models.pretrained.loading import load_adapter, load_causal_lm, load_scalar_lm

LORA = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
IDS = torch.tensor([[5, 6, 7]])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
@torch.no_grad()
def test_beneath_is_the_model_as_it_was_and_merged_is_the_sum(tiny_model, family):
    model, plain = tiny_model(family), tiny_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    add_lora(model, **LORA)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.fill_(0.05)
    beneath = base_state(model)
    assert beneath.keys() == before.keys()
    assert all(torch.equal(beneath[name], before[name]) for name in before)
    plain.load_state_dict(merged_state(model))
    # The adapter is added before or after the product: roundings of 2^-24 of logits up to 100.
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(base_state(model)[name], before[name]) for name in before)


def test_an_adapter_is_added_saved_and_loaded_without_a_word_of_the_libraries_future(tiny_model, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        adapter = add_lora(load_causal_lm(str(tmp_path / "base")), **LORA)
        adapter.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
        adapter.save_pretrained(tmp_path / "adapter")
        assert load_adapter(str(tmp_path / "adapter"), is_trainable=True).active_adapter == "default"


@pytest.mark.parametrize("name", [7, "x" * 5000, "bad\x00name"])
def test_a_base_that_cannot_be_a_name_is_refused(tmp_path, name):
    written = json.dumps({"base_model_name_or_path": name if isinstance(name, int) else f"/{name}"})
    (tmp_path / "adapter_config.json").write_text(written)
    (tmp_path / "base_model.json").write_text(json.dumps({"base_model": name}))
    with pytest.raises(ConfigError, match="names no base model|is not there"):
        base_of(str(tmp_path))


def test_an_adapter_of_a_kind_that_cannot_be_merged_is_refused(tiny_model, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path / "base")
    adapter = add_lora(load_causal_lm(str(tmp_path / "base")), **LORA)
    adapter.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    adapter.save_pretrained(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "alora_invocation_tokens": [3]}))
    with pytest.raises(ConfigError, match="does not support merging"):
        load_scalar_lm(str(tmp_path / "adapter"), new_head=True)


def test_a_plain_head_is_its_own_trained_head():
    head = torch.nn.Linear(3, 1)
    assert trained_head(head) is head
