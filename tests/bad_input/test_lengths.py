"""Rows and prompts that are too long for the config or the model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = "data/tiny_model"


@pytest.mark.parametrize(("verb", "section"), [("sft", "data"), ("reward-model", "data"), ("ppo", "prompts")])
def test_1_a_length_that_no_row_keeps_is_a_data_error(verb: str, section: str, refused: Callable[..., str]) -> None:
    line = refused(verb, [f"{section}.max_length=1"], 3)
    assert "0 rows left: all " in line and line.endswith("- see max_length and over_long")


def test_1_a_row_that_is_too_long_may_be_an_error(refused: Callable[..., str]) -> None:
    line = refused("sft", ["data.max_length=4", "data.over_long=error"], 3)
    assert "data/sft_train.jsonl:1: " in line and "at most 4 - raise max_length" in line


def test_2_a_prompt_and_a_response_beyond_the_positions_are_refused(refused: Callable[..., str]) -> None:
    line = refused("ppo", ["sampling.max_new_tokens=127"], 2)
    assert line.startswith("longest prompt (")
    assert f"sampling.max_new_tokens (127) exceed the 128 positions of {TINY}" in line


def test_2_a_demonstration_beyond_the_positions_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    row = {"prompt": "To me the cast", "completion": " was warm and rich" * 50}
    path.write_text(json.dumps(row) + "\n")
    line = refused("sft", [f"data.path={path}", "data.max_length=1000"], 2)
    assert line.startswith(f"{path}: the longest sequence has ")
    assert line.endswith("but the model has 128 positions - lower max_length (1000) to 128 or less")
