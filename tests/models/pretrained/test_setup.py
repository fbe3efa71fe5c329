"""What is trained is what was asked for, and what is saved loads with transformers and peft alone."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig, pipeline

from rlhf.models.pretrained.loading import load_causal_lm, load_scalar_lm
from rlhf.models.pretrained.setup import make_trainable, name_base, save_adapter_base, save_model
from rlhf.models.pretrained.tokenizer import eos_ids
from rlhf.models.scalar import ScalarModel
from rlhf.training.sharding.master_weights import MasterWeights

LORA = {"r": 4, "alpha": 8.0, "dropout": 0.0, "target_modules": "all-linear"}
IDS = torch.tensor([[5, 6, 7, 8]])
# An adapter added to its weight before or after the product: some hundred roundings of 2^-24 of values up to 100.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def _moved(trainable):
    """Move what is trained, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in trainable.model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return trainable


@torch.no_grad()
def _logits(model):
    return model.eval()(IDS).logits


@pytest.fixture
def source(tiny_model, tiny_tokenizer, tmp_path):
    """A saved model with two EOS ids, which a factory makes of any family."""

    def save(family="llama", **changes):
        model = tiny_model(family, **changes)
        model.generation_config = GenerationConfig(eos_token_id=[2, 7])
        model.save_pretrained(tmp_path / "source")
        tiny_tokenizer.save_pretrained(tmp_path / "source")
        return str(tmp_path / "source")

    return save


def _trainable(path, load=load_causal_lm, *, lora=None, layers=None):
    return make_trainable(load(path), path, lora=lora, trainable_layers=layers)


def test_what_is_trained_is_what_was_asked_for(source):
    path = source()
    whole, top, lora = _trainable(path), _trainable(path, layers=1), _trainable(path, lora=LORA)
    assert all(p.requires_grad for p in whole.model.parameters())
    assert {name.split(".layers.")[-1][0] for name, p in top.model.named_parameters() if p.requires_grad} == {"1", "m"}
    assert all(("lora_" in name) == p.requires_grad for name, p in lora.model.named_parameters())
    assert whole.adapter is None and top.adapter is None and lora.adapter is not None


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_a_saved_policy_is_an_ordinary_model_directory(source, tiny_tokenizer, tmp_path, family):
    trainable = _moved(_trainable(source(family)))
    target = tmp_path / "policy"
    save_model(trainable, tiny_tokenizer, target)
    assert torch.equal(_logits(AutoModelForCausalLM.from_pretrained(target)), _logits(trainable.model))
    assert eos_ids(str(target), tiny_tokenizer) == (2, 7)
    settings = json.loads((target / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [2, 7] and settings["pad_token_id"] == 0
    writer = pipeline("text-generation", model=str(target), device="cpu")
    assert writer("Good", max_new_tokens=3, do_sample=False)[0]["generated_text"].startswith("Good")
    assert not [file.name for file in target.iterdir() if file.suffix in (".bin", ".pt", ".pkl")]


def test_a_model_that_computes_in_bfloat16_is_saved_from_its_masters(source, tiny_tokenizer, tmp_path):
    trainable = _trainable(source(tie_word_embeddings=True), layers=1)
    exact = _logits(trainable.model)
    weights = MasterWeights(trainable.model, torch.bfloat16)
    with weights.in_full_precision():
        save_model(trainable, tiny_tokenizer, tmp_path / "policy")
    assert trainable.model.dtype == torch.bfloat16
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    assert again.dtype == torch.float32 and torch.equal(_logits(again), exact)


@pytest.mark.sweep
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_saved_adapter_loads_with_peft_and_here(source, tiny_tokenizer, tmp_path, monkeypatch, family):
    path = source(family, vocab_size=100)
    monkeypatch.chdir(tmp_path)
    model = load_causal_lm("source")
    trainable = _moved(make_trainable(model, "source", lora=LORA, trainable_layers=None))
    save_model(trainable, tiny_tokenizer, tmp_path / "policy")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    expected = _logits(trainable.model)
    assert not torch.equal(expected, _logits(load_causal_lm(path)))
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "policy")
    torch.testing.assert_close(_logits(theirs), expected, **TOLERANCE)
    ours = load_causal_lm(str(tmp_path / "policy"))
    torch.testing.assert_close(_logits(ours), expected, **TOLERANCE)
    assert not any("lora" in name for name, _ in ours.named_parameters())
    assert eos_ids(str(tmp_path / "policy"), tiny_tokenizer) == (2, 7)


@pytest.mark.slow
def test_an_adapter_on_an_adapter_names_the_merged_base(source, tiny_tokenizer, tmp_path):
    path = source(vocab_size=100, tie_word_embeddings=True)
    save_model(_moved(_trainable(path, lora=LORA)), tiny_tokenizer, tmp_path / "sft" / "policy")
    second = _trainable(str(tmp_path / "sft" / "policy"), lora=LORA)
    assert second.starts_from_adapter
    weights = MasterWeights(_moved(second).model, torch.bfloat16)
    with weights.in_full_precision():
        expected = _logits(second.model)
        save_adapter_base(second, tmp_path / "ppo" / "base_model")
        name_base(second.adapter, str(tmp_path / "ppo" / "base_model"))
        save_model(second, tiny_tokenizer, tmp_path / "unfinished")
    (tmp_path / "unfinished").rename(tmp_path / "ppo" / "policy")
    theirs = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "ppo" / "policy")
    torch.testing.assert_close(_logits(theirs), expected, **TOLERANCE)
    torch.testing.assert_close(_logits(load_causal_lm(str(tmp_path / "ppo" / "policy"))), expected, **TOLERANCE)


def _scalar(path):
    return load_scalar_lm(path, new_head=True)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_reward_model_with_an_adapter_trains_its_head_and_is_saved_whole(source, tiny_tokenizer, tmp_path, family):
    trainable = _trainable(source(family), _scalar, lora=LORA)
    trained = {name for name, p in trainable.model.named_parameters() if p.requires_grad}
    assert {name for name in trained if "lora_" not in name} == {"score.modules_to_save.default.weight"}
    model, mask = ScalarModel(trainable.model), torch.ones_like(IDS, dtype=torch.bool)
    model(IDS, mask).sum().backward()
    assert bool(trainable.model.score.modules_to_save.default.weight.grad.any())
    _moved(trainable)
    model.score_mean = 0.5
    weights = MasterWeights(trainable.model, torch.bfloat16)
    with torch.no_grad(), weights.in_full_precision():
        expected = model(IDS, mask)
        save_model(trainable, tiny_tokenizer, tmp_path / "rm")
        assert torch.equal(model(IDS, mask), expected)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    torch.testing.assert_close(_logits(theirs)[:, 0] - 0.5, expected, **TOLERANCE)
    with torch.no_grad():
        again = ScalarModel(load_scalar_lm(str(tmp_path / "rm"), new_head=False))(IDS, mask)
    torch.testing.assert_close(again, expected, **TOLERANCE)
    assert not trainable.starts_from_adapter


@pytest.mark.slow
def test_a_reward_model_can_start_from_an_adapter_of_the_policy(source, tiny_tokenizer, tmp_path):
    policy = _moved(_trainable(source(), lora=LORA))
    save_model(policy, tiny_tokenizer, tmp_path / "policy")
    trainable = _trainable(str(tmp_path / "policy"), _scalar, lora=LORA)
    with torch.no_grad():
        found = trainable.model.base_model(IDS).last_hidden_state
        torch.testing.assert_close(found, policy.model.base_model(IDS).last_hidden_state, **TOLERANCE)
    assert not trainable.starts_from_adapter
