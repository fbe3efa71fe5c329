"""Tests of settings made in Python: what is wrong is said as the command line says it."""

from pathlib import Path
from typing import Any

import pytest

from rlhf.config import (
    EvaluateSettings,
    GenerateSettings,
    PPOConfig,
    PPOSettings,
    RewardSettings,
    RunConfig,
    SFTSettings,
)
from rlhf.config.reading.loader import load_config, validate
from rlhf.config.shared import LoraSection
from rlhf.errors import ConfigError

WRONG: list[tuple[type[Any], dict[str, Any], list[str]]] = [
    (PPOSettings, {"stepz": 3}, ["steps: required, but missing", "stepz: unknown key (did you mean steps?) [got 3]"]),
    (PPOSettings, {"steps": "many"}, ['steps: must be an integer [got "many"]']),
    (PPOSettings, {"steps": 1, "kl": 0.1}, ["kl: unknown key [got 0.1]"]),
    (
        PPOSettings,
        {"steps": 1, "minibatches": 3},
        ["minibatches (3) must divide rollout_batch_size (64); nearest valid: 2 or 4"],
    ),
    (PPOSettings, {"steps": 1, "optimizer": {"betas": (0.9, 2.0)}}, ["optimizer.betas.1: must be at most 1 [got 2.0]"]),
    (SFTSettings, {}, ["set exactly one of epochs and steps"]),
    (SFTSettings, {"steps": 1, "model": {"lora": {"rank": 4}}}, ["model.lora.rank: unknown key [got 4]"]),
    (
        SFTSettings,
        {"steps": object, "model": {"lora": LoraSection(r=4), "lr": 1}},
        [
            "model.lr: unknown key (did you mean model.lora?) [got 1]",
            "steps: must be an integer [got \"<class 'object'>\"]",
        ],
    ),
    (RewardSettings, {"epochs": 0}, ["epochs: must be at least 1 [got 0]"]),
    (
        EvaluateSettings,
        {"decoding": {"max_tokens": 3}},
        ["decoding.max_tokens: unknown key (did you mean decoding.max_new_tokens?) [got 3]"],
    ),
    (GenerateSettings, {"temprature": 3}, ["temprature: unknown key (did you mean temperature?) [got 3]"]),
    (LoraSection, {"r": 0}, ["r: must be at least 1 [got 0]"]),
]


@pytest.mark.parametrize(("kind", "given", "expected"), WRONG)
def test_what_is_wrong_is_said_in_the_lines_of_the_command_line(
    kind: type[Any], given: dict[str, Any], expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        kind(**given)
    lines = str(refused.value).splitlines()
    assert lines == [f"config error: {kind.__name__}: {line}" for line in expected]
    assert refused.value.exit_status == 2


def test_a_file_says_the_same(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "output_dir": "x", "model": {"path": "m"}, "prompts": {"path": "p"}, "stepz": 3,
        "rewards": [{"kind": "length", "at_most": 1}],
    }  # fmt: skip
    with pytest.raises(ConfigError) as in_python:
        PPOConfig(**given)
    with pytest.raises(ConfigError) as in_a_file:
        validate(PPOConfig, given, "PPOConfig")
    assert str(in_python.value) == str(in_a_file.value)


def test_sections_inside_a_recipe_keep_their_strict_reading_and_their_paths(tmp_path: Path) -> None:
    text = "output_dir: runs/x\nsft: {model: {path: m}, data: {path: d}, steps: '4'}\nppo: {stepz: 3}\n"
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_config(RunConfig, tmp_path / "run.yaml")
    for line in ('sft.steps: must be an integer [got "4"]', "ppo.stepz: unknown key (did you mean ppo.steps?"):
        assert line in str(refused.value)


def test_what_is_right_is_taken_as_python_has_it() -> None:
    made = PPOSettings(steps=2, optimizer={"betas": (0.8, 0.9)}, model={"lora": LoraSection(r=4)})
    assert made.optimizer.betas == (0.8, 0.9) and isinstance(made.model.lora, LoraSection) and made.model.lora.r == 4
    assert PPOSettings.model_validate(made.model_dump()) == made == made.model_copy()
