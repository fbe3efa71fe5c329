import json
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.fetch.smollm2 import _read_once


@pytest.fixture(scope="module")
def directory(real_artifact):
    return real_artifact("smollm2-135m-instruct")


@pytest.mark.real
def test_the_real_model_is_an_ordinary_directory_that_knows_paris(directory):
    assert {path.suffix for path in directory.iterdir()} <= {".json", ".safetensors", ".jinja"}
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=False, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    answer = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


@pytest.mark.real
def test_pad_and_eos_of_the_real_model_differ(directory):
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    config = json.loads((directory / "config.json").read_text())
    assert tokenizer.pad_token_id == config["pad_token_id"] != tokenizer.eos_token_id == config["eos_token_id"]
    assert len(tokenizer) == config["vocab_size"]
    assert "quantization_config" not in config


def test_a_file_is_read_once_while_the_model_is_made_and_never_kept_after(monkeypatch):
    read = []
    fake = SimpleNamespace(GGUFReader=lambda path: read.append(path) or [path], get_tensor_name_map=lambda *a: [a])
    monkeypatch.setitem(sys.modules, "gguf", fake)
    own = vars(fake).copy()
    for _ in range(2):
        with _read_once():
            assert fake.GGUFReader("a") is fake.GGUFReader("a") is not fake.GGUFReader("b")
            assert fake.get_tensor_name_map(1, 30) is fake.get_tensor_name_map(1, 30)
    assert read == ["a", "b"] * 2 and vars(fake) == own
