"""Directories of models from anywhere: each fault is one line that names the file, and status 2."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from rlhf.errors import ConfigError
from rlhf.models.pretrained.adapters import base_of
from rlhf.models.pretrained.directory import check_directory
from rlhf.models.pretrained.loading import load_adapter, load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.tokenizer import eos_ids, load_tokenizer
from rlhf.rewards.kinds.classifier import labels_of
from rlhf.training.storage.fingerprint import content_digest


@pytest.fixture
def directory(tiny_model, tmp_path) -> Path:
    tiny_model("llama").save_pretrained(tmp_path / "lm", max_shard_size="20KB")
    return tmp_path / "lm"


@pytest.mark.parametrize("name", ["../../etc/x.safetensors", "/etc/passwd", "sub/x.safetensors", 3])
def test_an_index_that_points_outside_the_directory_is_refused(directory, name) -> None:
    index = directory / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    first = next(iter(content["weight_map"]))
    index.write_text(json.dumps({**content, "weight_map": {**content["weight_map"], first: name}}))
    with pytest.raises(ConfigError, match=r"model.safetensors.index.json: weight_map must name files in the same dir"):
        load_causal_lm(str(directory))


def test_a_sharded_model_loads(directory) -> None:
    assert len(list(directory.glob("*.safetensors"))) > 1
    assert load_causal_lm(str(directory)).can_generate()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("temperature", "", "must be a number, found ''"),
        ("top_k", [], r"must be a number, found '\[\]'"),
        ("top_p", True, "must be a number, found 'True'"),
        ("min_p", float("inf"), "must be a number, found 'inf'"),
        ("min_p", float("nan"), "must be a number, found 'nan'"),
        ("top_k", 10**400, "must be a number, found '1000"),
        ("eos_token_id", {}, "must be a token id or a list of them, found '{}'"),
        ("eos_token_id", [2, None], r"must be a token id or a list of them, found '\[2, None\]'"),
        ("eos_token_id", "2", "must be a token id or a list of them, found '2'"),
    ],
)
def test_a_generation_setting_of_another_type_is_refused_with_its_key(directory, key, value, expected) -> None:
    (directory / "generation_config.json").write_text(json.dumps({key: value}))
    with pytest.raises(ConfigError, match=rf"generation_config.json: {key} {expected}"):
        load_causal_lm(str(directory))
    with pytest.raises(ConfigError, match=key):
        eos_ids(str(directory), None)


BROKEN = {
    "no json": ("{", "is no JSON"),
    "a list": ("[1, 2]", "expected a JSON object, found list"),
    "nested": ("[" * 100_000, "nested too deeply|is no JSON"),
    "not text": (b"\xff\xfe\x00", "is no JSON"),
}


@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_a_broken_json_file_is_named(directory, name, broken) -> None:
    content, said = BROKEN[broken]
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    readers = [load_causal_lm, lambda path: load_scalar_lm(path, new_head=False), load_tokenizer, labels_of]
    for read in readers:
        with pytest.raises(ConfigError, match=rf"{name}: ({said})"):
            read(str(directory))
    with pytest.raises(ConfigError, match=name):
        load_causal_lm(str(directory), random_init=True)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "before quantization"),
        ("attn_implementation", "someone/kernels", "names code on the hub"),
        ("_attn_implementation", "someone/kernels@v1:f", "names code on the hub"),
        ("hidden_size", "wide", "no model could be loaded"),
        ("model_type", ["llama"], "no model could be loaded"),
    ],
)
def test_a_config_that_needs_other_code_or_has_other_types_is_refused(directory, key, value, said) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, key: value}))
    with pytest.raises(ConfigError, match=said):
        load_causal_lm(str(directory))


@pytest.fixture
def adapter(directory) -> Path:
    model = get_peft_model(load_causal_lm(str(directory)), LoraConfig(r=2, target_modules="all-linear"))
    model.peft_config["default"].base_model_name_or_path = str(directory)
    model.save_pretrained(directory.with_name("adapter"))
    return directory.with_name("adapter")


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_adapter_config_is_named(adapter, content) -> None:
    (adapter / "adapter_config.json").write_text(content)
    for read in (load_adapter, base_of):
        with pytest.raises(ConfigError, match="adapter_config.json: "):
            read(str(adapter))
    assert len(content_digest(str(adapter))) == 64  # what a stage asks for before it loads anything


def test_adapter_weights_in_a_pickle_file_are_refused_and_never_opened(adapter) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    with pytest.raises(ConfigError, match=r"adapter_model.bin: a pickle file") as refusal:
        load_adapter(str(adapter))
    assert "weights_only" not in str(refusal.value)


def test_weights_that_are_not_finite_are_called_so(directory) -> None:
    for file in directory.glob("*.safetensors"):
        save_file({name: tensor * torch.nan for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ConfigError, match="its logits are not finite: the weights hold NaN or infinity"):
        load_causal_lm(str(directory))


def test_a_broken_generation_config_is_named_where_only_the_end_of_a_response_is_read(tiny_tokenizer, tmp_path) -> None:
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(ConfigError, match="generation_config.json: is no JSON"):
        eos_ids(str(tmp_path), tiny_tokenizer)


def test_a_hub_name_without_a_hub_says_so(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for read in (load_causal_lm, load_tokenizer, labels_of):
        with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE is set, and the hub's cache does not hold it"):
            read("someone/something")


@pytest.mark.parametrize("config", [{"n_layer": 1e9}, {"text_config": {"num_hidden_layers": 10**30}}])
def test_a_model_of_more_layers_than_could_ever_be_built_is_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"config\.json: \w+ is [1e+0.]+, at most 10000"):
        check_directory(str(tmp_path))
