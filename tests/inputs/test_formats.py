"""ShareGPT and Alpaca, as public sets have them: every stage reads them, without a `column_map`."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.api.sft import SFTTrainer
from rlhf.config import SFTSettings
from rlhf.data.reading.dataset_type import COLUMNS
from rlhf.data.reading.typed_rows import in_our_columns
from rlhf.data.records import Row
from rlhf.errors import DataError

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
PAIRS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]


def in_ours(**values: Any) -> dict[str, Any]:
    return in_our_columns(Row(values, "f.jsonl:1"), COLUMNS).row.values


SHAREGPT = {
    "from and value": {"conversations": PAIRS},
    "conversation, with an id": {"id": "QWJhYvA_0", "conversation": PAIRS},
    "role and content": {"conversations": MESSAGES},
    "nulls of the other shape": {"conversations": [{**turn, "role": None, "content": None} for turn in PAIRS]},
    "user and assistant as speakers": {
        "conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Yo"}]
    },
    "human and gpt as roles": {"conversations": [{"role": "human", "content": "Hi"}, {"role": "gpt", "content": "Yo"}]},
    "input and output in each turn": {"conversation": [{"input": "Hi", "output": "Yo"}]},
    "a mapping of lists": {"conversations": {"from": ["human", "gpt"], "value": ["Hi", "Yo"]}},
    "JSON as text, in CSV": {"conversations": '[{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]'},
    "from and value under messages": {"messages": PAIRS},
    "an empty system column": {"conversations": PAIRS, "system": ""},
    "text beside it": {"conversations": PAIRS, "text": "Hi Yo"},
}


@pytest.mark.parametrize("case", SHAREGPT)
def test_sharegpt_is_read_like_the_same_messages(case: str, taken: Callable) -> None:
    for options in ({}, {"loss_on": "assistant"}):
        found = taken("sft", SHAREGPT[case], **options)
        assert found.items == taken("sft", {"messages": MESSAGES}, **options).items
    assert ("from ShareGPT" in found.description) is ("messages" not in SHAREGPT[case])


@pytest.mark.parametrize(
    "column_map", [{"messages": "conversations"}, {"prompt": "conversations", "completion": "answer"}]
)
def test_an_explicit_column_map_wins(column_map: dict[str, str], taken: Callable) -> None:
    row = {"conversations": PAIRS[:1], "answer": PAIRS[1:], "system": "S", "instruction": "no", "output": "no"}
    row = row if "prompt" in column_map else {**row, "conversations": PAIRS}
    found = taken("sft", row, column_map=column_map)
    assert "from" not in found.description
    assert found.items == taken("sft", {"messages": MESSAGES}).items


def test_a_system_column_goes_in_front_and_other_columns_stay() -> None:
    assert in_ours(conversations=PAIRS, system="Be kind", tools="[]") == {
        "messages": [{"role": "system", "content": "Be kind"}, *MESSAGES],
        "tools": "[]",
    }


def test_tools_are_called_and_answer() -> None:
    call = {"name": "sum", "arguments": {"a": 1}}
    turns = [
        {"from": "human", "value": "1+1"},
        {"from": "function_call", "value": '{"name": "sum", "arguments": {"a": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "gpt", "value": "Two"},
    ]
    assert in_ours(conversations=turns)["messages"] == [
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "Two"},
    ]


def test_an_unknown_speaker_is_refused_by_turn(taken: Callable) -> None:
    row = {"conversations": [PAIRS[0], {"from": "narrator", "value": "x"}]}
    with pytest.raises(
        DataError, match=r"f.jsonl:1: conversations\[1\].from: nobody knows who 'narrator' is; expected"
    ):
        taken("sft", row)


ALPACA = {"instruction": "Add", "input": "1 and 2", "output": "3"}
ALPACAS = {
    "with input": (ALPACA, "Add\n\n1 and 2"),
    "with an empty input": ({**ALPACA, "input": ""}, "Add"),
    "with a null input": ({**ALPACA, "input": None}, "Add"),
    "without input": ({"instruction": "Add", "output": "3"}, "Add"),
    "with the whole text beside it": ({**ALPACA, "text": "Below is an instruction ..."}, "Add\n\n1 and 2"),
}


@pytest.mark.parametrize("case", ALPACAS)
def test_alpaca_is_read_as_prompt_and_completion(case: str, taken: Callable) -> None:
    row, prompt = ALPACAS[case]
    found = taken("sft", row)
    assert found.items == taken("sft", {"prompt": prompt, "completion": "3"}).items
    assert found.description == "prompt and completion, from Alpaca"


def test_alpaca_with_system_or_history_is_a_conversation(taken: Callable) -> None:
    row = {**ALPACA, "input": "", "system": "S", "history": [["Hi", "Yo"]]}
    messages = [
        {"role": "system", "content": "S"},
        *MESSAGES,
        {"role": "user", "content": "Add"},
        {"role": "assistant", "content": "3"},
    ]
    assert taken("sft", row).items == taken("sft", {"messages": messages}).items
    assert taken("sft", {**ALPACA, "input": "", "system": None}).items == taken("sft", {"messages": messages[3:]}).items


def test_ms_swift_is_alpaca_under_other_names(taken: Callable) -> None:
    row = {"query": "Hi", "response": "Yo"}
    assert taken("sft", row).items == taken("sft", {"prompt": "Hi", "completion": "Yo"}).items
    assert taken("ppo", row).items[0].text == "Hi"
    with_system = [{"role": "system", "content": "S"}, *MESSAGES]
    found = taken("sft", {**row, "system": "S", "history": []})
    assert found.items == taken("sft", {"messages": with_system}).items
    assert found.description == "prompt and completion, from ms-swift"
    pair = taken("reward-model", {**row, "rejected_response": "No"}).items
    assert pair == taken("reward-model", {"prompt": "Hi", "chosen": "Yo", "rejected": "No"}).items


def test_text_and_conversations_are_not_mixed_silently(taken: Callable) -> None:
    message = r"f.jsonl:2: holds .* from Alpaca with system or history, but f.jsonl:1 holds .* from Alpaca;"
    with pytest.raises(DataError, match=message):
        taken("sft", ALPACA, {**ALPACA, "system": "S"})


@pytest.mark.parametrize("stage", ["ppo", "resets"])
def test_prompts_are_what_comes_before_the_last_answer(stage: str, taken: Callable) -> None:
    for row, plain in (
        ({"conversations": PAIRS}, {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}),
        ({"messages": MESSAGES}, {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}),
        (ALPACA, {"prompt": "Add\n\n1 and 2", "completion": "3"}),
    ):
        assert taken(stage, row).items == taken(stage, plain).items


def test_a_prompt_column_is_the_prompt_of_ppo_whatever_lies_beside_it(taken: Callable) -> None:
    row = {"prompt": "Count", **ALPACA}
    assert taken("ppo", row).items[0].text == "Count"
    assert taken("ppo", row).items[0].columns == ALPACA
    assert taken("sft", row).items == taken("sft", ALPACA).items  # nothing says what completes "Count"


def test_what_was_detected_is_said_once(
    workshop: Path, tmp_path: Path, on_disk: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    path = on_disk.write_rows(tmp_path / "a.jsonl", [ALPACA] * 3)
    trainer = SFTTrainer(str(workshop / "policy"), config=SFTSettings(steps=1, batch_size=2))
    trainer.train(path)
    trainer_of_rows = SFTTrainer(str(workshop / "policy"), config=SFTSettings(steps=1, batch_size=2))
    trainer_of_rows.train([ALPACA] * 3)
    printed = capsys.readouterr().out
    assert printed.count(f"{path} [prompt and completion, from Alpaca]: read 3, kept 3") == 1
    assert printed.count("data [prompt and completion, from Alpaca]: read 3, kept 3") == 1
