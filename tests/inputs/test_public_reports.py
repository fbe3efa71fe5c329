"""Data that people reported as unreadable elsewhere, read here. Each test names the report."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf.data.reading.rows import read_rows

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
OTHER = [TALK[0], {"role": "assistant", "content": "No"}]


def of_file(path: Path, content: Any) -> list[dict[str, Any]]:
    path.write_text(json.dumps(content))
    return [row.values for row in read_rows(path)]


def test_axolotl_1868_a_local_json_file_of_preferences(taken: Callable, tmp_path: Path) -> None:
    rows = of_file(tmp_path / "orpo1.json", [{"chosen": TALK, "rejected": OTHER}] * 2)
    assert len(taken("reward-model", *rows).items) == 2


def test_llamafactory_6878_speakers_under_two_names_in_one_set(taken: Callable) -> None:
    one = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    other = [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Yo"}]
    first, second = taken("sft", {"conversations": one}, {"conversations": other}).items
    assert first == second


def test_openrlhf_909_with_and_without_prompt_a_pair_is_the_same(taken: Callable) -> None:
    apart = {"prompt": TALK[:1], "chosen": TALK[1:], "rejected": OTHER[1:]}
    whole = {"chosen": TALK, "rejected": OTHER}
    assert taken("reward-model", apart).items == taken("reward-model", whole).items


def test_trl_2164_pairs_of_text_and_pairs_of_conversations_without_prompt(taken: Callable, read: Callable) -> None:
    like_hh = {"chosen": "\n\nHuman: Hi\n\nAssistant: Yo", "rejected": "\n\nHuman: Hi\n\nAssistant: No"}
    like_ultrafeedback = {"chosen": TALK, "rejected": OTHER, "score_chosen": 9.0, "score_rejected": 2.0}
    assert read(taken("reward-model", like_hh).items[0].chosen_ids) == like_hh["chosen"] + "<eos>"
    assert read(taken("reward-model", like_ultrafeedback).items[0].rejected_ids) == "U:Hi\nA:No<eos>"


def test_unsloth_321_an_array_of_conversations_that_are_arrays(taken: Callable, tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]
    rows = of_file(tmp_path / "my_data.json", [turns, turns])
    assert taken("sft", *rows).items == taken("sft", *[{"messages": TALK}] * 2).items


def test_ms_swift_3792_a_system_column_in_some_rows_of_query_and_response(taken: Callable) -> None:
    row = {"system": "S", "query": "Hi", "response": "Yo"}
    assert taken("ppo", row).items[0].text == "S:S\nU:Hi\nA:"
