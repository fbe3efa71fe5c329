"""Tokenizers without a pad token, an EOS or a chat template, and responses with no end but EOS, or without one."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer


@pytest.mark.parametrize("pad_token", [None, "<eos>"])
def test_14_15_a_tokenizer_without_a_pad_token_of_its_own_gets_one(
    pad_token: str | None, run: Callable, tmp_path: Path, tiny_model_copy: Callable[..., Path]
) -> None:
    model = tiny_model_copy(tmp_path / "model", pad_token=pad_token)
    outcome = run("sft", [f"model.path={model}"])
    assert outcome.status == 0
    saved = AutoTokenizer.from_pretrained(outcome.directory / "policy")
    assert saved.pad_token == "<pad>" and saved.pad_token_id != saved.eos_token_id
    assert json.loads((outcome.directory / "policy/config.json").read_text())["vocab_size"] == 488


@pytest.mark.parametrize("verb", ["sft", "reward-model", "ppo"])
def test_16_a_tokenizer_without_eos_is_refused(
    verb: str, refused: Callable[..., str], tmp_path: Path, tiny_model_copy: Callable[..., Path]
) -> None:
    model = tiny_model_copy(tmp_path / "model", eos_token=None)
    line = refused(verb, [f"model.path={model}"], 2)
    assert line == f"{model}: the tokenizer has no EOS token - set eos_token in its tokenizer_config.json"


def test_16_messages_without_a_chat_template_are_refused(
    refused: Callable[..., str], tmp_path: Path, tiny_model_copy: Callable[..., Path]
) -> None:
    model = tiny_model_copy(tmp_path / "model")
    (model / "chat_template.jinja").unlink()
    line = refused("sft", [f"model.path={model}", "data.path=data/conversations.jsonl"], 2)
    assert line == f"{model}: the rows hold messages, but the tokenizer has no chat template - add chat_template.jinja"


def test_5_a_response_that_is_eos_at_once_has_length_1_and_gets_its_score(
    run: Callable, tmp_path: Path, tiny_model_copy: Callable[..., Path]
) -> None:
    model = tiny_model_copy(tmp_path / "model")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(488))}))
    outcome = run("ppo", [f"model.path={model}", "score.missing_eos_penalty=1"])
    assert outcome.status == 0
    metrics = outcome.metrics
    assert all(math.isfinite(number) for number in metrics.values())
    assert (metrics["val/response_length"], metrics["val/share_ended"], metrics["val/num_eos_tokens"]) == (1, 1, 4)
    assert metrics["objective/scores"] == metrics["objective/rlhf_reward"] == 2.5


def test_6_without_any_eos_every_score_is_lowered_and_the_share_is_0(run: Callable) -> None:
    outcome = run("ppo", ["sampling.max_new_tokens=2", "score.missing_eos_penalty=1.5"])
    assert outcome.status == 0
    metrics = outcome.metrics
    assert all(math.isfinite(number) for number in metrics.values())
    assert (metrics["val/share_ended"], metrics["val/response_length"]) == (0, 2)
    assert (metrics["objective/raw_scores"], metrics["objective/scores"]) == (2.5, 1.0)
