"""Tests of rlhf.api.generation: the rows of `rlhf generate`, from Python."""

import inspect
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf import Callback, GenerateSettings, evaluate, generate
from rlhf.config import GenerateConfig
from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.generate import generate as verb

PROMPTS = Path(__file__).parents[2] / "data" / "heldout_prompts.jsonl"


def test_verb_and_function_give_the_same_rows_of_names_and_of_objects(workshop: Path, tmp_path: Path) -> None:
    decoding = {"max_new_tokens": 6, "temperature": 0.8, "stop_strings": ["e"]}
    shared = {"seed": 3, "samples_per_prompt": 2, "precision": "float32"}
    verb(
        GenerateConfig.model_validate(
            {
                **shared, "model": str(workshop / "policy"), "prompts": {"path": str(PROMPTS)},
                "output": str(tmp_path / "rows.jsonl"), "decoding": decoding,
            }
        )
    )  # fmt: skip
    expected = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    model = AutoModelForCausalLM.from_pretrained(workshop / "policy", dtype=torch.float32)
    texts = [json.loads(line)["prompt"] for line in PROMPTS.read_text().splitlines()]
    assert generate(workshop / "policy", PROMPTS, **decoding, **shared) == expected
    assert generate(model, texts, AutoTokenizer.from_pretrained(workshop / "policy"), **decoding, **shared) == expected
    assert len(expected) == 32 and {row["ended"] for row in expected} == {True, False}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_messages_are_answered_too(workshop: Path) -> None:
    talk = [{"role": "user", "content": "Was it good?"}]
    rows = generate(str(workshop / "policy"), [talk, {"prompt": "The film"}], max_new_tokens=3)
    assert [row["prompt"] for row in rows] == [talk, "The film"] and all(1 <= row["tokens"] <= 3 for row in rows)


def test_no_prompt_is_dropped_in_silence(workshop: Path) -> None:
    with pytest.raises(ConfigError, match=r"longest prompt \(\d+ tokens\) \+ decoding.max_new_tokens \(48\) exceed"):
        generate(workshop / "policy", ["the music " * 200, "A"])
    with pytest.raises(DataError, match="prompt 2: empty"):
        generate(workshop / "policy", ["A", ""])
    rows = generate(workshop / "policy", ["the music " * 200, "A"], fitting={"max_length": 32}, max_new_tokens=2)
    assert [row["prompt"] for row in rows] == ["A"]


def test_what_makes_no_sense_is_one_clear_line(workshop: Path) -> None:
    with pytest.raises(ConfigError, match=r"generate: max_new_token: .*max_new_tokens"):
        generate(workshop / "policy", ["A"], max_new_token=3)
    with pytest.raises(ConfigError, match="generate: temperature: must be at least 0"):
        generate(workshop / "policy", ["A"], temperature=-1.0)
    with pytest.raises(ConfigError, match="policy: expected a causal language model .* found int"):
        generate(3, ["A"])  # type: ignore[arg-type]


def test_the_defaults_are_those_of_the_verb() -> None:
    shown = inspect.signature(generate).parameters
    for name in ("max_new_tokens", "temperature", "seed"):
        assert shown[name].default == GenerateSettings.model_fields[name].default, name
    assert GenerateSettings().decoding == GenerateConfig(model="m").decoding


class Looks(Callback):
    def on_step(self, trainer: Any, step: int, metrics: dict[str, float]) -> None:
        self.seen = trainer.generate(["The film"], max_new_tokens=3)


@pytest.mark.slow
@pytest.mark.parametrize("tuning", [{}, {"lora": {"r": 2, "dropout": 0.5}}], ids=["full", "lora"])
def test_a_trainer_answers_with_its_policy_as_it_is_now(sft: Any, workshop: Path, tmp_path: Path, tuning: Any) -> None:
    options = {"max_new_tokens": 6, "samples_per_prompt": 2, "stop_strings": ["e"], "seed": 3}
    texts, looks = ["The film", "At last"], Looks()
    made = sft.make(workshop / "policy", model=dict(tuning), callbacks=[looks])
    before = made.generate(texts, **options)
    assert before == generate(workshop / "policy", texts, precision="float32", **options)
    sft.train(made)
    made.save(tmp_path / "policy")
    after = made.generate(texts, **options)
    assert after == generate(tmp_path / "policy", texts, precision="float32", **options) != before
    assert len(after) == 4 and looks.seen == made.generate(["The film"], max_new_tokens=3)
    plain = sft.make(workshop / "policy", model=dict(tuning))
    sft.train(plain)
    assert [row["loss"] for row in plain.history] == [row["loss"] for row in made.history], "looking changes nothing"


@pytest.mark.slow
def test_a_ppo_trainer_answers_too_and_refuses_what_generate_refuses(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    made = tiny.ppo_trainer(workshop)
    made.train(tiny.BEGINNINGS)
    made.save(tmp_path / "policy")
    expected = generate(tmp_path / "policy", tiny.BEGINNINGS, max_new_tokens=4, precision="float32")
    assert made.generate(tiny.BEGINNINGS, max_new_tokens=4) == expected
    with pytest.raises(ConfigError, match=r"max_tokens: unknown key \(did you mean max_new_tokens\?"):
        made.generate(["A"], max_tokens=3)


def test_a_tokenizer_for_a_policy_by_name_is_refused_as_it_would_do_nothing(workshop: Path) -> None:
    tokenizer, message = AutoTokenizer.from_pretrained(workshop / "policy"), "tokenizer: a policy given by name comes"
    with pytest.raises(ConfigError, match=message):
        generate(workshop / "policy", ["A"], tokenizer, max_new_tokens=2)
    with pytest.raises(ConfigError, match=message):
        evaluate({"a": workshop / "policy"}, ["A"], tokenizer)
