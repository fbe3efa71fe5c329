"""Tests of rlhf.preferences.pairs."""

from collections import Counter

import pytest
import torch

from rlhf.config import GenerateConfig, SamplePairsConfig
from rlhf.config.reading.loader import validate
from rlhf.data.reading.rows import read_rows
from rlhf.errors import ConfigError, DataError
from rlhf.evaluation.generate import generate
from rlhf.preferences.pairs import drawn_pairs, sample_pairs


def sampled(workshop, tmp_path, name="pairs.jsonl", **changes):
    given = {
        "model": str(workshop / "policy"),
        "prompts": {"path": str(workshop / "prompts.jsonl"), "max_length": 32},
        "output": str(tmp_path / name),
        "samples_per_prompt": 3,
        "decoding": {"max_new_tokens": 5},
        "precision": "float32",
    }
    return sample_pairs(validate(SamplePairsConfig, given | changes, "here"))


def numbers():
    return torch.Generator().manual_seed(0)


def test_every_two_answers_that_differ_are_a_pair():
    pairs, fates = drawn_pairs(["a", "b", "c"], None, numbers())
    assert pairs == [(0, 1), (0, 2), (1, 2)] and not fates


def test_equal_blank_and_repeated_pairs_are_dropped_and_counted():
    pairs, fates = drawn_pairs(["a", "a", "b", " "], None, numbers())
    assert pairs == [(0, 2)]  # (0, 1) is equal, (1, 2) the same two texts, and three pairs have the blank answer
    assert fates == Counter(dropped_empty=3, dropped_equal=1, dropped_repeated=1)


def test_a_limit_draws_among_the_pairs_that_differ_and_each_is_drawn_equally_often():
    draws = numbers()
    found = Counter(drawn_pairs(["a", "b", "c"], 1, draws)[0][0] for _ in range(600))
    assert found.keys() == {(0, 1), (0, 2), (1, 2)} and min(found.values()) > 150
    assert drawn_pairs(["a", "b", "c"], 2, draws)[1] == Counter(not_drawn=1)
    assert drawn_pairs(["a", "a"], 1, draws) == ([], Counter(dropped_equal=1))


def test_the_pairs_are_those_of_the_answers_that_generate_gives(workshop, tmp_path, on_disk, capsys):
    decoding = {"max_new_tokens": 5, "stop_strings": ["e", "s"]}  # some answers end, others are cut
    rows = on_disk.rows(sampled(workshop, tmp_path, seed=3, decoding=decoding))
    answers = {"model": str(workshop / "policy"), "output": str(tmp_path / "answers.jsonl"), "seed": 3}
    answers |= {"prompts": {"path": str(workshop / "prompts.jsonl"), "max_length": 32}, "samples_per_prompt": 3}
    answers |= {"decoding": decoding, "precision": "float32"}
    told = {}
    for row in on_disk.rows(generate(validate(GenerateConfig, answers, "here"))):
        told.setdefault(row["prompt"], {})[row["response"]] = (row["ended"], row["tokens"])
    assert {row["prompt"] for row in rows} <= told.keys() and len(rows) > len(told)
    for row in rows:
        assert row["first"] != row["second"]
        for place, name in enumerate(("first", "second")):
            assert told[row["prompt"]][row[name]] == (row["ended"][place], row["tokens"][place])
    assert any(row["ended"][0] != row["ended"][1] for row in rows)
    labels = {row.values["prompt"]: row.values["label"] for row in read_rows(workshop / "prompts.jsonl")}
    assert all(row["label"] == labels[row["prompt"]] for row in rows)
    assert f"pairs: kept {len(rows)}" in capsys.readouterr().out


def test_a_seed_gives_the_same_bytes_and_another_one_others(workshop, tmp_path):
    first, second, other = (
        sampled(workshop, tmp_path, str(place), seed=seed, pairs_per_prompt=1).read_bytes()
        for place, seed in enumerate((5, 5, 6))
    )
    assert first == second != other


def test_answers_to_a_conversation_are_messages(workshop, tmp_path, on_disk):
    asked = [{"role": "user", "content": "How was it?"}]
    prompts = on_disk.write_rows(tmp_path / "chats.jsonl", [{"prompt": asked}])
    rows = on_disk.rows(sampled(workshop, tmp_path, prompts={"path": str(prompts)}))
    assert rows and all(row["prompt"] == asked for row in rows)
    (message,) = rows[0]["first"]
    assert message["role"] == "assistant" and message["content"]


def test_no_two_answers_that_differ_are_refused_with_the_fix(workshop, tmp_path):
    with pytest.raises(DataError, match="0 pairs left of 8 prompts .*dropped_equal 21.* raise decoding.temperature"):
        sampled(workshop, tmp_path, decoding={"max_new_tokens": 5, "temperature": 1e-6})
    with pytest.raises(ConfigError, match="decoding.temperature: at 0 all answers .* set it above 0"):
        sampled(workshop, tmp_path, decoding={"temperature": 0})


def test_the_file_of_prompts_is_never_overwritten(workshop, tmp_path):
    with pytest.raises(ConfigError, match="is the file that is read, .* name another one"):
        sampled(workshop, workshop, "prompts.jsonl")
