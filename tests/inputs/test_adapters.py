"""Adapters as starting points: merged with a word, continued when asked, and found again after a move."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from rlhf import PPOTrainer
from rlhf.config import PPOConfig, SftConfig
from rlhf.config.reading.loader import validate
from rlhf.errors import ConfigError, RlhfError
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.ppo import train_ppo
from rlhf.sft import train_sft
from rlhf.training.storage.fingerprint import content_digest

IDS = torch.tensor([[5, 6, 7, 8]])
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""An adapter added to its weight before or after the product."""


@torch.no_grad()
def _logits(model):
    return model.eval()(IDS).logits


@pytest.fixture
def adapter(tiny, workshop, tmp_path):
    """A run directory with a base, and an adapter on it that has learnt something."""
    shutil.copytree(workshop / "policy", tmp_path / "run" / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "base")
    made = get_peft_model(base, LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    made.peft_config["default"].base_model_name_or_path = str(tmp_path / "run" / "base")
    made.save_pretrained(tmp_path / "run" / "adapter")
    tiny.give_tokenizer(tmp_path / "run" / "adapter")
    return tmp_path / "run" / "adapter"


def _sft(workshop, adapter, tmp_path, **model):
    data = {"path": str(workshop / "demonstrations.jsonl")}
    section = {"path": str(adapter), "precision": "float32", **model}
    given = {"output_dir": str(tmp_path / "sft"), "model": section, "data": data, "steps": 1, "batch_size": 2}
    return train_sft(SftConfig.model_validate(given))


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("lora", "said"),
    [(None, "the sum is trained and saved as a whole model"), ({"r": 2}, "a new adapter is trained on the sum")],
)
def test_an_adapter_that_was_merged_is_said_to_be(workshop, adapter, tmp_path, capsys, lora, said) -> None:
    policy = _sft(workshop, adapter, tmp_path, lora=lora)
    lines = [line for line in capsys.readouterr().out.splitlines() if "was merged into its base" in line]
    assert len(lines) == 1 and str(adapter.parent / "base") in lines[0] and said in lines[0]
    assert "model.lora=continue" in lines[0]
    assert (policy / "adapter_config.json").is_file() == (lora is not None)


@pytest.mark.slow
def test_continue_trains_the_same_adapter_on_the_same_base(workshop, adapter, tmp_path, capsys) -> None:
    # huggingface/trl#3684: SFT and then RL on one adapter, without merging it in between.
    policy = _sft(workshop, adapter, tmp_path, lora="continue")
    assert "was merged" not in capsys.readouterr().out
    config = json.loads((policy / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(adapter.parent / "base") and (
        config["r"],
        config["lora_alpha"],
    ) == (2, 4)
    assert not (tmp_path / "sft" / "base_model").exists()
    theirs = AutoPeftModelForCausalLM.from_pretrained(policy)
    before = AutoPeftModelForCausalLM.from_pretrained(adapter)
    moved = (_logits(theirs) - _logits(before)).abs().max()
    assert 0 < moved < 0.1  # a step of 3e-5 from where it was, not from zero
    torch.testing.assert_close(_logits(load_causal_lm(str(policy))), _logits(theirs), **TOLERANCE)


def _ppo(tiny, workshop, adapter, **changes):
    return tiny.ppo_config(workshop, model__path=str(adapter), model__lora="continue", **changes)


@pytest.mark.slow
@torch.no_grad()
def test_the_reference_is_the_adapter_as_it_was(tiny, workshop, adapter) -> None:
    # huggingface/trl#1340 and #495: the base alone was the reference, and the KL was large at the first step.
    made = tiny.parts(_ppo(tiny, workshop, adapter))
    rollout = tiny.collected(made).rollout
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
    before = AutoPeftModelForCausalLM.from_pretrained(adapter)
    reference = made.trainer.collector.reference.model
    torch.testing.assert_close(_logits(reference), _logits(before), **TOLERANCE)
    with torch.enable_grad():
        made.trainer.step([made.prompts[i] for i in range(8)])
    torch.testing.assert_close(_logits(reference), _logits(before), **TOLERANCE)
    assert not torch.equal(_logits(made.trained.model), _logits(reference))
    base = {p.data_ptr() for n, p in made.trained.model.named_parameters() if "lora_" not in n}
    assert base <= {p.data_ptr() for p in reference.parameters()}  # the base is there once


@pytest.mark.slow
def test_a_continued_run_ends_in_the_same_bytes_after_a_stop(
    tiny, workshop, adapter, tmp_path, stopped_after_two_steps
) -> None:
    def config(name):
        changes = {"steps": 3, "checkpoints": {"every": 1}, "output_dir": str(tmp_path / name)}
        return _ppo(tiny, workshop, adapter, **changes)

    whole = train_ppo(config("whole"))
    stopped_after_two_steps(config("parts"))
    parts = train_ppo(config("parts"))
    assert (whole / "adapter_model.safetensors").read_bytes() == (parts / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_resets_and_a_separate_critic_continue_too(tiny, workshop, adapter) -> None:
    changes = {"reset": tiny.reset_section(workshop, 0.5), **tiny.separate(workshop)}
    made = tiny.parts(_ppo(tiny, workshop, adapter, **changes))
    rollout = tiny.collected(made).rollout
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
    assert made.trainer.step([made.prompts[i] for i in range(8)]).updates


@pytest.mark.slow
def test_from_python_an_adapter_is_continued_by_name_and_as_an_object(tiny, workshop, adapter) -> None:
    settings = tiny.settings(workshop, model__lora="continue")
    base = AutoModelForCausalLM.from_pretrained(adapter.parent / "base")
    given = PeftModel.from_pretrained(base, adapter, is_trainable=True)
    for policy in (str(adapter), given):
        trainer = PPOTrainer(policy, None, tiny.share_of_e, str(adapter), settings)
        sampled = trainer.rollout(["The film", "At last"] * 4)
        batch = trainer.make_experience(sampled, trainer.score(sampled))
        rollout = batch.experience.rollout
        assert torch.equal(rollout.logprobs, rollout.ref_logprobs)


@pytest.mark.slow
def test_adapter_and_base_can_be_moved_together(workshop, adapter, tmp_path, tiny) -> None:
    policy = _sft(workshop, adapter, tmp_path / "run", lora="continue")
    expected, digest = _logits(load_causal_lm(str(policy))), content_digest(str(policy))
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    moved = str(tmp_path / "elsewhere" / "sft" / "policy")
    assert torch.equal(_logits(load_causal_lm(moved)), expected)
    assert content_digest(moved) == digest


def test_a_base_that_is_gone_is_named_and_the_advice_works(adapter, tmp_path) -> None:
    expected = _logits(load_causal_lm(str(adapter)))
    (adapter.parent / "base").rename(tmp_path / "other")
    with pytest.raises(
        ConfigError, match=r"its base model .*/base is not there - put it there, or set base_model"
    ) as e:
        load_causal_lm(str(adapter))
    file = Path(str(e.value).split("base_model_name_or_path in ")[1].split(" to where")[0])
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": str(tmp_path / "other")}))
    assert torch.equal(_logits(load_causal_lm(str(adapter))), expected)
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match="names no base model - set base_model_name_or_path"):
        load_causal_lm(str(adapter))


def test_continue_without_an_adapter_is_refused(tiny, workshop) -> None:
    with pytest.raises(ConfigError, match=r"needs the directory of an adapter .* use lora: \{r: 16\} for a new one"):
        tiny.parts(tiny.ppo_config(workshop, model__lora="continue"))


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("contineu", r"^.*model.lora: must be 'continue' \(did you mean continue\?\)[^;]*$"),
        ({"r": 0}, r"model.lora.r: must be at least 1 \[got 0\][^;]*$"),
    ],
)
def test_what_is_wrong_with_lora_is_said_once(tiny, workshop, lora, message) -> None:
    given = tiny.ppo_config(workshop).model_dump(mode="json")
    given["model"]["lora"] = lora
    with pytest.raises(RlhfError, match=message):
        validate(PPOConfig, given, "file")
