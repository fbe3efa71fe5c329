"""Tests of rlhf.models.pretrained.adapted."""

import sys
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from rlhf.models.pretrained.adapted import has_adapter_layers, is_adapted, is_lora_layer, is_saved_with_adapter


def test_parts_of_peft_are_known(tiny_model: Any) -> None:
    plain = tiny_model("llama")
    assert not is_adapted(plain) and not has_adapter_layers(plain)
    model = get_peft_model(plain, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"]))
    layers = [type(module).__name__ for module in model.modules() if is_lora_layer(module)]
    assert is_adapted(model) and not is_adapted(plain) and not is_adapted("model") and has_adapter_layers(plain)
    assert layers == ["Linear"] * 2 and is_saved_with_adapter(model.get_base_model().lm_head)
    assert not is_saved_with_adapter(model.get_base_model().model.norm)


def test_where_nobody_has_imported_peft_nothing_is_a_part_of_it(
    tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = get_peft_model(tiny_model("llama"), LoraConfig(r=2, target_modules=["q_proj"]))
    for name in [each for each in sys.modules if each.partition(".")[0] == "peft"]:
        monkeypatch.delitem(sys.modules, name)
    assert not is_adapted(model) and not has_adapter_layers(model)
    assert not any(map(is_lora_layer, model.modules())) and "peft" not in sys.modules
