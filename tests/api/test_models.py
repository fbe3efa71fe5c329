"""Tests of rlhf.api.models and rlhf.api.inputs: policies and references as objects."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.errors import ConfigError
from rlhf.models.pretrained.tokenizer import load_tokenizer, tokenizer_fingerprint


def test_a_given_policy_is_trained_in_place_and_equals_one_that_was_named(tiny: ModuleType, workshop: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    before = model.lm_head.weight.detach().clone()
    given, named = tiny.ppo_trainer(workshop, policy=model), tiny.ppo_trainer(workshop)
    for made in (given, named):
        made.train(tiny.prompt_rows(workshop))
    assert given.ppo.policy.lm is model and not torch.equal(model.lm_head.weight, before)
    tiny.assert_equal(tiny.policy_state(given), tiny.policy_state(named))


def test_a_policy_in_bfloat16_is_trained_in_float32(tiny: ModuleType, workshop: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.bfloat16)
    rounded = model.get_input_embeddings().weight.float()
    made = tiny.ppo_trainer(workshop, policy=model, model__precision="bfloat16")
    masters = made.ppo.optimizer.weights.masters
    assert {master.dtype for master in masters.values()} == {torch.float32}
    assert torch.equal(masters["lm.model.embed_tokens.weight"], rounded)
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.slow
def test_an_adapter_is_its_own_reference_when_it_is_switched_off(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    torch.manual_seed(0)
    policy = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    made = tiny.ppo_trainer(workshop, policy=policy)
    history = made.train(tiny.prompt_rows(workshop))
    assert history[0]["objective/kl"] == 0.0 and history[1]["objective/kl"] != 0.0
    assert made.ppo.collector.reference.model is made.ppo.policy.lm
    made.save(tmp_path / "saved")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "saved")
    saved = {name: tensor for name, tensor in loaded.state_dict().items() if "lora_B" in name}
    assert saved and all(float(tensor.abs().sum()) > 0 for tensor in saved.values())


@pytest.mark.slow
def test_another_reference_is_what_the_kl_is_measured_to(tiny: ModuleType, workshop: Path) -> None:
    torch.manual_seed(5)
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(workshop / "policy")
    other = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for tuning in ({}, {"model__trainable_layers": 1}, {"model__lora": {"r": 2}}):
        made = tiny.ppo_trainer(workshop, reference=other, **tuning)
        rollout = made.rollout(tiny.BEGINNINGS)
        seen = made.make_experience(rollout, made.score(rollout)).experience.rollout
        row = int(seen.response_mask.sum(1).argmax())
        prompt, response = seen.prompt_ids[row][seen.prompt_mask[row]], seen.response_ids[row][seen.response_mask[row]]
        logits = other(torch.cat([prompt, response])[None]).logits[0].log_softmax(-1)
        places = torch.arange(len(response)) + len(prompt) - 1
        expected = logits[places, response]
        torch.testing.assert_close(seen.ref_logprobs[row][seen.response_mask[row]], expected, rtol=1e-4, atol=1e-4)
    policy = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    with pytest.raises(ConfigError, match="reference: it is the policy itself"):
        tiny.ppo_trainer(workshop, policy=policy, reference=policy)


@pytest.fixture
def permuted(workshop: Path, tmp_path: Path) -> Path:
    """The policy's directory, in whose tokenizer two tokens have changed places."""
    path = Path(shutil.copytree(workshop / "policy", tmp_path / "permuted"))
    content = json.loads((path / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    added = {each["id"] for each in content["added_tokens"]}
    one, other = [token for token, index in vocabulary.items() if index not in added][10:12]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    (path / "tokenizer.json").write_text(json.dumps(content))
    return path


def test_a_policy_with_a_tokenizer_whose_ids_are_permuted_is_refused(
    tiny: ModuleType, workshop: Path, permuted: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    own, other = (AutoTokenizer.from_pretrained(path) for path in (workshop / "policy", permuted))
    marks = [tokenizer_fingerprint(load_tokenizer(str(path)))[:8] for path in (permuted, workshop / "policy")]
    with pytest.raises(ConfigError, match=r"tokenizer: the tokenizer \(\d+ ids, \w+\) is not that of .*policy") as no:
        tiny.ppo_trainer(workshop, policy=model, tokenizer=other)
    assert marks[0] in str(no.value) and "there" in str(no.value)
    assert tiny.ppo_trainer(workshop, policy=model, tokenizer=own)


def test_a_reference_with_a_tokenizer_whose_ids_are_permuted_is_refused(
    tiny: ModuleType, workshop: Path, permuted: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(permuted, dtype=torch.float32)
    with pytest.raises(ConfigError, match=r"reference: the tokenizer \(.* is not that of .*permuted"):
        tiny.ppo_trainer(workshop, reference=model)


def test_a_tokenizer_with_new_tokens_is_that_of_its_model(tiny: ModuleType, workshop: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(workshop / "policy")
    tokenizer.add_tokens(["<think>"])
    model.resize_token_embeddings(len(tokenizer))
    assert tiny.ppo_trainer(workshop, policy=model, tokenizer=tokenizer)
