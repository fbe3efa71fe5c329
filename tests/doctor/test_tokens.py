"""Tests of rlhf.doctor.tokens."""

import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

SPEAKERS = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}\n{% endfor %}"
GOOD = SPEAKERS + "{% if add_generation_prompt %}assistant:{% endif %}"
OTHER_OPENING = SPEAKERS + "{% if add_generation_prompt %}assistant: <think>{% endif %}"


@pytest.fixture
def conversations(tmp_path: Path, on_disk: ModuleType) -> str:
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in ("So", "It was", "The film", "At last", "I")]
    return str(on_disk.write_rows(tmp_path / "prompts.jsonl", rows))


def use_template(template: str):
    def change(parts) -> None:
        parts.trainer.collector.tokenizer.chat_template = template

    return change


def test_pad_equal_to_eos_fails(config, examined, troubles) -> None:
    def confuse(parts) -> None:
        parts.trainer.collector.tokenizer.pad_token = parts.trainer.collector.tokenizer.eos_token

    findings = examined(config(), confuse)
    assert troubles(findings) == {"pad token": "failing"}
    assert "set pad_token" in findings["pad token"].advice


def test_a_pad_token_among_other_ends_is_warned_of(config, examined, troubles) -> None:
    def add_end(parts) -> None:
        collector = parts.trainer.collector
        collector.eos_ids = (*collector.eos_ids, collector.tokenizer.pad_token_id)

    assert troubles(examined(config(), add_end)) == {"pad token": "warning"}


@pytest.fixture
def spoken(config, conversations, workshop):
    """A healthy config whose prompts are messages."""
    return config(prompts__path=conversations, prompts__max_length=64, model_reward=workshop / "reward_model")


@pytest.mark.slow
def test_a_template_whose_prompt_begins_the_conversation_is_well(spoken, examined, troubles) -> None:
    findings = examined(spoken, use_template(GOOD))
    assert troubles(findings) == {}
    assert findings["chat template"].measured == "the conversation begins with the prompt in 8 of 8"


@pytest.mark.slow
def test_a_template_that_opens_the_answer_otherwise_fails(spoken, examined, troubles) -> None:
    findings = examined(spoken, use_template(OTHER_OPENING))
    assert troubles(findings) == {"chat template": "failing"}
    assert "in 0 of 8" in findings["chat template"].measured


@pytest.mark.slow
def test_a_reward_model_with_other_special_tokens_is_warned_of(config, workshop, tmp_path, examined, troubles) -> None:
    other = shutil.copytree(workshop / "reward_model", tmp_path / "other")
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<bos>"}))
    findings = examined(config(model_reward=other))
    assert troubles(findings) == {"tokenizers": "warning"}
    assert "rewards[0] reads text" in findings["tokenizers"].measured
    assert examined(config(model_reward=workshop / "reward_model"))["tokenizers"].measured.endswith("reads ids")


@pytest.mark.slow
def test_a_critic_is_among_those_that_read_ids(config, workshop, examined) -> None:
    made = config(critic="separate", critic_model={"path": str(workshop / "reward_model")})
    assert "the critic reads ids" in examined(made)["tokenizers"].measured
