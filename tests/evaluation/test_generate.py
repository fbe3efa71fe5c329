"""Tests of rlhf.evaluation.generate."""

import io
import json
import sys
from pathlib import Path

import pytest

from rlhf.config import GenerateConfig
from rlhf.errors import CheckpointError, ConfigError, DataError
from rlhf.evaluation.generate import generate

HELDOUT = Path(__file__).parents[2] / "data" / "heldout_prompts.jsonl"


def config(model, **changes):
    return GenerateConfig(
        **({"model": str(model), "decoding": {"max_new_tokens": 6}, "precision": "float32"} | changes)
    )


def from_standard_input(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text), encoding="utf-8"))


def test_a_file_of_prompts_becomes_a_file_of_responses_and_a_seed_the_same_bytes(policy_directory, tmp_path, capsys):
    prompts = {"path": str(HELDOUT), "max_length": 32}
    outputs = [tmp_path / "deep" / name for name in ("first.jsonl", "second.jsonl", "other.jsonl")]
    for output, seed in zip(outputs, (3, 3, 4), strict=True):
        settings = config(policy_directory(0), prompts=prompts, output=str(output), seed=seed)
        assert generate(settings) == output
    first, second, other = (output.read_bytes() for output in outputs)
    assert first == second != other
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["prompt"] for row in rows] == [json.loads(line)["prompt"] for line in HELDOUT.open()]
    assert all(1 <= row["tokens"] <= 6 and isinstance(row["response"], str) for row in rows)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "prompts [prompt]: read 16, kept 16" in printed.err
    assert [path.name for path in sorted(outputs[0].parent.iterdir())] == ["first.jsonl", "other.jsonl", "second.jsonl"]


def test_prompts_from_standard_input_are_answered_on_standard_output(policy_directory, monkeypatch, capsys):
    from_standard_input(monkeypatch, b"To me the cast\r\n\nAt heart\n")
    assert generate(config(policy_directory(0), samples_per_prompt=2)) is None
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["To me the cast"] * 2 + ["At heart"] * 2
    assert rows[0]["response"] != rows[1]["response"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", r"standard input: 0 prompts - give one per line, or set prompts\.path"),
        (b"\n  \n", "standard input: 0 prompts"),
        (b"caf\xe9\n", "standard input: byte 3 is not utf-8"),
    ],
)
def test_standard_input_without_a_readable_prompt_is_refused(policy_directory, monkeypatch, text, message):
    from_standard_input(monkeypatch, text)
    with pytest.raises(DataError, match=message):
        generate(config(policy_directory(0)))


def test_a_prompt_from_standard_input_that_is_too_long_is_refused(policy_directory, monkeypatch):
    from_standard_input(monkeypatch, b"the music " * 100)
    with pytest.raises(
        ConfigError, match=r"longest prompt \(\d+ tokens\) \+ decoding.max_new_tokens \(6\) exceed the 128"
    ):
        generate(config(policy_directory(0)))


def test_an_output_that_cannot_be_written_is_a_checkpoint_error(policy_directory, monkeypatch, tmp_path):
    from_standard_input(monkeypatch, b"To me\n")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        generate(config(policy_directory(0), output=str(tmp_path / "file" / "out.jsonl")))
