"""A model that keeps its first blocks computes what they compute; only the top is trained."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.config.reward_model import DepthSection
from rlhf.errors import ConfigError
from rlhf.models.passes.anatomy import blocks
from rlhf.models.pretrained.depth import freeze_all_but_top, keep_first_blocks
from rlhf.models.pretrained.loading import load_scalar_lm
from rlhf.stage.model import tuned

IDS = torch.tensor([[5, 6, 7]])


@pytest.fixture
def saved(tiny_model, tmp_path):
    tiny_model("llama").save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2", "gemma3"])
def test_the_first_blocks_compute_what_they_did_and_load_again(tiny_model, tmp_path, family):
    sizes = {"n_layer": 3} if family == "gpt2" else {"num_hidden_layers": 3}
    if family == "gemma3":
        sizes["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    model = tiny_model(family, **sizes)
    seen = {}
    blocks(model)[1].register_forward_hook(
        lambda _, __, out: seen.update(states=out[0] if isinstance(out, tuple) else out)
    )
    model(IDS)
    model.save_pretrained(tmp_path)
    scalar = load_scalar_lm(str(tmp_path), new_head=True)
    keep_first_blocks(scalar, 2)
    again_seen = {}
    blocks(scalar)[1].register_forward_hook(
        lambda _, __, out: again_seen.update(states=out[0] if isinstance(out, tuple) else out)
    )
    expected = scalar.base_model(input_ids=IDS).last_hidden_state
    assert torch.equal(again_seen["states"], seen["states"])
    scalar.save_pretrained(tmp_path / "cut")
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "cut")
    assert len(blocks(again)) == 2
    assert torch.equal(again.base_model(input_ids=IDS).last_hidden_state, expected)


def test_more_blocks_than_there_are_cannot_be_kept(saved):
    with pytest.raises(ConfigError, match=r"model\.num_layers: 3, but the model has 2 blocks - use at most that"):
        keep_first_blocks(load_scalar_lm(saved, new_head=True), 3)


def test_blocks_are_counted_from_the_top_of_what_is_kept(saved, tiny_tokenizer):
    scalar = load_scalar_lm(saved, new_head=True)
    with pytest.raises(ConfigError, match=r"model\.trainable_layers: 2, but the model has 1 blocks"):
        tuned(scalar, DepthSection(num_layers=1, trainable_layers=2), tiny_tokenizer, "there")


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2"])
def test_only_the_top_is_trained_and_the_backward_pass_stops_below(tiny_model, family):
    model = tiny_model(family, **({"n_layer": 3} if family == "gpt2" else {"num_hidden_layers": 3}))
    freeze_all_but_top(model, 1)
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert names == {
        name for name, _ in model.named_parameters() if ".2." in name or name.split(".")[-2] in ("norm", "ln_f")
    }
    reached = []
    stack = model.transformer.h if family == "gpt2" else model.model.layers
    for block in stack:
        block.register_forward_hook(
            lambda _, __, out: reached.append((out[0] if isinstance(out, tuple) else out).requires_grad)
        )
    model(IDS).logits.sum().backward()
    assert reached == [False, False, True]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == names


def test_the_head_of_a_scalar_model_is_trained_with_the_top(saved):
    scalar = load_scalar_lm(saved, new_head=True)
    freeze_all_but_top(scalar, 2)
    assert scalar.score.weight.requires_grad and not scalar.model.embed_tokens.weight.requires_grad
    with pytest.raises(ConfigError, match=r"model\.trainable_layers: 3, but the model has 2 blocks"):
        freeze_all_but_top(scalar, 3)
