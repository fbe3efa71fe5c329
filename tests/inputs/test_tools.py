"""Conversations with tools: calls without content, answers of tools, and the tools that a row offers."""

import json
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from datasets import Dataset

from rlhf.data.reading.rows import read_rows
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs
from rlhf.errors import DataError

Made = Callable[..., Any]
USER = {"role": "user", "content": "Is it sunny in Paris?"}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOLD = {"role": "tool", "content": '{"sky": "clear"}', "name": "weather"}
ANSWER = {"role": "assistant", "content": "Sure."}
TALK = [USER, CALLING, TOLD, ANSWER]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
SAID = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>'


@pytest.fixture(params=["QWEN_2_5", "QWEN_3"])
def qwen(request: pytest.FixtureRequest, public: ModuleType) -> Any:
    """A tokenizer whose template knows tools."""
    return public.byte_level(getattr(public, request.param), "<|im_end|>")


def test_calls_are_learnt_and_what_tools_answer_is_not(qwen: Any, examples: Made, learnt: Made) -> None:
    found = examples(qwen, {"loss_on": "assistant"}, messages=TALK, tools=TOOLS).items
    said = "".join(learnt(qwen, example) for example in found)
    assert SAID in said and said.endswith("Sure.<|im_end|>")
    assert "clear" not in said and "sunny" not in said
    whole = qwen.decode(found[-1].input_ids)
    assert '<tool_response>\n{"sky": "clear"}\n</tool_response>' in whole
    assert "# Tools" in whole and json.dumps(TOOLS[0]) in whole


def test_a_call_may_be_the_last_answer(qwen: Any, examples: Made, learnt: Made, sampled: Made) -> None:
    prompt = sampled(qwen, prompt=[USER], tools=TOOLS)
    assert "# Tools" in qwen.decode(prompt)
    for fields in ({"messages": [USER, CALLING]}, {"prompt": [USER], "completion": [CALLING]}):
        (example,) = examples(qwen, **fields, tools=TOOLS).items
        assert example.input_ids[: len(prompt)] == prompt
        assert learnt(qwen, example).endswith(SAID)


def test_sampling_and_training_read_the_same_ids_after_a_tool_has_answered(
    qwen: Any, examples: Made, sampled: Made, learnt: Made
) -> None:
    prompt = sampled(qwen, prompt=TALK[:3], tools=TOOLS)
    (example,) = examples(qwen, messages=TALK, tools=TOOLS).items
    assert example.input_ids[: len(prompt)] == prompt
    assert learnt(qwen, example).endswith("Sure.<|im_end|>")
    row = Row({"prompt": TALK[:3], "chosen": [ANSWER], "rejected": [CALLING], "tools": TOOLS}, "f.jsonl:1")
    (pair,) = prepare_pairs([row], qwen, max_length=900).items
    assert pair.chosen_ids == example.input_ids
    assert pair.rejected_ids[: len(prompt)] == prompt


@pytest.mark.parametrize(
    "call",
    [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"function": {"name": "weather", "arguments": {"city": "Paris", "day": None}}},
        {"name": "weather", "arguments": {"city": "Paris"}},
    ],
    ids=["arguments as JSON text", "nulls of datasets", "without function"],
)
def test_calls_as_others_write_them_are_the_same(qwen: Any, examples: Made, call: dict[str, Any]) -> None:
    other = {"role": "assistant", "tool_calls": [call]}
    for content in ({}, {"content": ""}, {"content": None}):
        made = examples(qwen, messages=[USER, {**other, **content}], tools=TOOLS)
        assert made.items == examples(qwen, messages=[USER, CALLING], tools=TOOLS).items


def test_tools_may_be_json_text_and_may_be_missing(qwen: Any, sampled: Made) -> None:
    ids = sampled(qwen, prompt=[USER], tools=TOOLS)
    assert sampled(qwen, prompt=[USER], tools=json.dumps(TOOLS)) == ids
    bare = sampled(qwen, prompt=[USER])
    for nothing in (None, [], "", "[]"):
        assert sampled(qwen, prompt=[USER], tools=nothing) == bare != ids


def test_rows_of_datasets_are_the_same(qwen: Any, tmp_path: Any) -> None:
    Dataset.from_list([{"messages": TALK, "tools": TOOLS}]).to_parquet(tmp_path / "talks.parquet")
    read = prepare_examples(read_rows(tmp_path / "talks.parquet"), qwen, max_length=900)
    given = prepare_examples([Row({"messages": TALK, "tools": TOOLS}, "f.jsonl:1")], qwen, max_length=900)
    assert read.items == given.items


@pytest.mark.parametrize(
    ("template", "columns", "message"),
    [
        ("CHATML", {"prompt": [USER], "tools": TOOLS}, r"f.jsonl:1: the row has tools, and the chat template does not"),
        ("CHATML", {"prompt": TALK[:3]}, "f.jsonl:1: an assistant calls a tool, and the chat template does not read"),
        ("DEEPSEEK_V3", {"prompt": [USER, TOLD]}, "f.jsonl:1: a message of role tool, and the chat template leaves it"),
        ("QWEN_3", {"prompt": [USER], "tools": "x"}, "f.jsonl:1: tools must be a list of JSON schemas, or JSON text"),
        ("QWEN_3", {"prompt": [USER], "tools": [3]}, "f.jsonl:1: tools must be a list of JSON schemas, or JSON text"),
        (
            "QWEN_3",
            {"prompt": [USER, {"role": "assistant", "tool_calls": [{"function": {}}]}]},
            r"f.jsonl:1: prompt\[1\].tool_calls\[0\].function must be an object with name and arguments",
        ),
        (
            "QWEN_3",
            {"prompt": [USER, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]},
            r"f.jsonl:1: prompt\[1\].tool_calls\[0\].function.arguments must be an object, or JSON text of one, found",
        ),
        ("QWEN_3", {"prompt": [USER, {"role": "assistant", "tool_calls": 3}]}, "tool_calls must be a list of calls"),
        ("QWEN_3", {"prompt": [{"role": "user", "content": None}]}, r"prompt\[0\].content must be text, found null"),
    ],
)
def test_what_would_be_left_out_or_is_malformed_is_refused(
    public: ModuleType, sampled: Made, template: str, columns: dict[str, Any], message: str
) -> None:
    tokenizer = public.byte_level(getattr(public, template), "<|im_end|>")
    with pytest.raises(DataError, match=message):
        sampled(tokenizer, **columns)


def test_the_hints_work(public: ModuleType, sampled: Made) -> None:
    tokenizer = public.byte_level(public.CHATML, "<|im_end|>")
    with pytest.raises(DataError, match=r"\(model.chat_template\), or rename the column \(column_map: \{unread: tools"):
        sampled(tokenizer, prompt=[USER], tools=TOOLS)
    assert sampled(tokenizer, prompt=[USER], unread=TOOLS)
    tokenizer.chat_template = public.QWEN_3
    assert sampled(tokenizer, prompt=[USER], tools=TOOLS)
