"""What is loaded is what was saved; what cannot serve is refused in one line."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from rlhf.errors import ConfigError
from rlhf.models.pretrained.loading import (
    check_positions,
    context_length,
    frozen_in,
    load_causal_lm,
    load_scalar_lm,
    scalar_head,
)

IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture
def saved(tiny_model, tmp_path):
    model = tiny_model("llama", attention_dropout=0.1)
    model.save_pretrained(tmp_path / "lm")
    return model, str(tmp_path / "lm")


@torch.no_grad()
def test_a_saved_model_comes_back_in_float32_without_dropout(saved):
    model, path = saved
    model.to(torch.bfloat16).save_pretrained(path)
    loaded = load_causal_lm(path)
    rounded = {name: tensor.float() for name, tensor in model.state_dict().items()}
    assert not loaded.training and loaded.dtype == torch.float32
    assert all(torch.equal(tensor, rounded[name]) for name, tensor in loaded.state_dict().items())
    assert torch.equal(loaded.train()(IDS).logits, loaded.eval()(IDS).logits)


@torch.no_grad()
def test_random_weights_follow_the_seed_and_leave_the_global_generator_alone(saved):
    _, path = saved
    state = torch.get_rng_state()
    first, same, other = (load_causal_lm(path, random_init=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert not first.training
    assert torch.equal(first(IDS).logits, same(IDS).logits)
    assert not torch.equal(first(IDS).logits, other(IDS).logits)


@pytest.mark.parametrize("options", [{}, {"random_init": True}])
def test_a_path_without_a_model_is_refused(tmp_path, options):
    with pytest.raises(ConfigError, match="no model could be loaded .* - give a local directory, fetch:NAME, or a hub"):
        load_causal_lm(str(tmp_path), **options)


def test_lacking_weights_are_refused_and_never_drawn(saved):
    _, path = saved
    file = f"{path}/model.safetensors"
    weights = load_file(file)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lack 1 weights of LlamaForCausalLM, such as model\.layers\.1\.mlp\.up"):
        load_causal_lm(path)


def test_a_truncated_file_is_refused(saved):
    _, path = saved
    file = f"{path}/model.safetensors"
    with open(file, "rb+") as stream:
        stream.truncate(1000)
    with pytest.raises(ConfigError, match="no model could be loaded"):
        load_causal_lm(path)


def test_a_new_head_is_drawn_with_its_deviation_from_the_seed(tiny_model, tmp_path):
    tiny_model("llama", hidden_size=512, num_hidden_layers=1).save_pretrained(tmp_path)
    state = torch.get_rng_state()
    first, same, other = (
        scalar_head(load_scalar_lm(str(tmp_path), new_head=True, seed=seed)).weight for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, same) and not torch.equal(first, other)
    # 1 / sqrt(513) = 0.04415; the deviation of 512 draws is known to 1 / sqrt(1024) = 3 %, here within 4 of these.
    assert float(first.detach().std()) == pytest.approx(513**-0.5, rel=0.125)
    assert abs(float(first.detach().mean())) < 4 * 513**-0.5 / 512**0.5


@torch.no_grad()
def test_the_trunk_of_a_scalar_model_is_the_language_models(saved):
    model, path = saved
    scalar = load_scalar_lm(path, new_head=True)
    assert scalar.config.num_labels == 1
    assert torch.equal(scalar.base_model(IDS).last_hidden_state, model.base_model(IDS).last_hidden_state)


def test_a_random_scalar_model_needs_no_weights(saved):
    first, other = (load_scalar_lm(saved[1], random_init=True, seed=seed, new_head=True) for seed in (0, 1))
    assert not torch.equal(first.base_model.embed_tokens.weight, other.base_model.embed_tokens.weight)


def test_two_labels_are_refused(saved, tmp_path):
    AutoModelForSequenceClassification.from_pretrained(saved[1], num_labels=2).save_pretrained(tmp_path / "rm")
    with pytest.raises(ConfigError, match="a reward model needs 1 label, found 2"):
        load_scalar_lm(str(tmp_path / "rm"), new_head=False)


def test_a_language_model_is_no_reward_model(saved):
    with pytest.raises(ConfigError, match="a reward model needs 1 label, found 2"):
        load_scalar_lm(saved[1], new_head=False)
    file = f"{saved[1]}/config.json"
    with open(file) as stream:
        config = json.load(stream)
    with open(file, "w") as stream:
        json.dump({**config, "id2label": {"0": "score"}}, stream)
    with pytest.raises(ConfigError, match=r"lack 1 weights of LlamaForSequenceClassification, such as score\.weight"):
        load_scalar_lm(saved[1], new_head=False)


def test_an_encoder_is_no_reward_model(tmp_path):
    config = BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="BertForSequenceClassification has no linear head named score"):
        load_scalar_lm(str(tmp_path), new_head=False)


def test_frozen_weights_are_rounded_but_not_buffers_and_heads(saved):
    scalar = frozen_in(load_scalar_lm(saved[1], new_head=True).train(), torch.bfloat16)
    assert not scalar.training and not any(p.requires_grad for p in scalar.parameters())
    assert scalar.score.weight.dtype == torch.float32
    assert scalar.model.embed_tokens.weight.dtype == torch.bfloat16
    assert scalar.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_context_length_is_found(tiny_model, family):
    assert context_length(tiny_model(family)) == 256


def test_a_prompt_and_a_response_may_fill_all_positions_and_no_more(tiny_model, monkeypatch):
    model = tiny_model("llama")
    check_positions(model, "dir", 200, 56, key="max_new", fix="lower it")
    with pytest.raises(ConfigError) as caught:
        check_positions(model, "dir", 200, 57, key="max_new", fix="lower it", where="path: ")
    assert str(caught.value) == (
        "path: longest prompt (200 tokens) + max_new (57) exceed the 256 positions of dir - lower it"
    )
    monkeypatch.setattr("rlhf.models.pretrained.loading.context_length", lambda model: None)
    check_positions(model, "dir", 200, 57, key="max_new", fix="lower it")
