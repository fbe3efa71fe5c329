"""Rows that cannot be used, greetings, and questions that nobody answered: `on_bad_row`, counts and first locations."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf import PPOSettings, PPOTrainer
from rlhf.cli import main
from rlhf.config.shared import FittingSection
from rlhf.data import stream_rows
from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.reading.column_names import in_our_names
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs, prepare_prompts
from rlhf.errors import DataError

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "ab"}
GREETING = {"role": "assistant", "content": "hi"}
Made = Callable[..., Any]


def rows(*values: Any) -> list[Row]:
    return [Row(value, f"f.jsonl:{number}") for number, value in enumerate(values, start=1)]


def test_a_greeting_is_context_and_an_unanswered_question_is_left_out_with_a_count(
    tiny_tokenizer: Any, learnt: Made
) -> None:
    values = [{"messages": [GREETING, USER, ANSWER, USER]}, {"messages": [USER, ANSWER]}]
    values.append({"messages": [USER, ANSWER, USER, USER]})
    for loss_on in ("completion", "assistant"):
        made = prepare_examples(rows(*values), tiny_tokenizer, max_length=50, loss_on=loss_on)
        assert [learnt(tiny_tokenizer, example) for example in made.items] == ["ab<eos>"] * 3
        assert tiny_tokenizer.decode(made.items[0].input_ids) == "A:hi<eos>\nU:q\nA:ab<eos>"
        assert made.notes == [
            "2 rows ended without an answer; the turns after the last answer were left out (first: f.jsonl:1)"
        ]


def test_pairs_and_demonstrations_leave_out_a_last_question_too(tiny_tokenizer: Any) -> None:
    row = {"prompt": [GREETING, USER], "chosen": [ANSWER, USER], "rejected": [GREETING]}
    pairs = prepare_pairs(rows(row), tiny_tokenizer, max_length=50)
    shown = prepare_demonstrations(rows(row), tiny_tokenizer, max_length=50)
    assert tiny_tokenizer.decode(pairs.items[0].chosen_ids) == "A:hi<eos>\nU:q\nA:ab<eos>"
    assert tiny_tokenizer.decode(shown.items[0].response_ids) == "ab<eos>"
    for made in (pairs, shown):
        assert made.notes[0].startswith("1 row ended without an answer")


def test_a_prompt_may_begin_with_a_greeting(tiny_tokenizer: Any, sampled: Made) -> None:
    assert tiny_tokenizer.decode(sampled(tiny_tokenizer, prompt=[GREETING, USER])) == "A:hi<eos>\nU:q\nA:"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "null": ({"messages": None}, "messages must be text or a list of messages"),
    "no role": ({"messages": [{"content": "x"}]}, r"messages\[\].role must be text"),
    "no answer": ({"messages": [USER]}, "no answer: an assistant's message after another one"),
    "empty": ({"messages": [USER, {"role": "assistant", "content": ""}]}, "empty text, prompt, completion or message"),
    "surrogate": ({"messages": [USER, {"role": "assistant", "content": "\ud83d"}]}, "a lone surrogate"),
    "other type": ({"text": "abc"}, "needed columns {messages} like f.jsonl:1"),
}


@pytest.mark.parametrize("case", BAD)
def test_every_kind_of_bad_row_stops_by_default_and_is_dropped_when_asked(tiny_tokenizer: Any, case: str) -> None:
    bad, reason = BAD[case]
    values = rows({"messages": [USER, ANSWER]}, bad, {"messages": [USER, ANSWER]}, bad)
    with pytest.raises(DataError, match="^f.jsonl:2: "):
        prepare_examples(values, tiny_tokenizer, max_length=50)
    made = prepare_examples(values, tiny_tokenizer, max_length=50, on_bad_row="drop")
    assert (made.counts["read"], made.counts["kept"], made.counts["dropped_bad"]) == (4, 2, 2)
    (note,) = made.notes
    assert note.startswith(f"2 rows dropped: {reason.replace(chr(92), '')}")
    assert note.endswith("(first: f.jsonl:2)")


def test_each_reason_has_its_count_and_its_first_location(tiny_tokenizer: Any) -> None:
    values = rows({"messages": None}, {"messages": [USER, ANSWER]}, {"messages": [USER]}, {"messages": None})
    made = prepare_examples(values, tiny_tokenizer, max_length=50, on_bad_row="drop")
    assert made.notes == [
        "2 rows dropped: messages must be text or a list of messages (first: f.jsonl:1)",
        "1 row dropped: no answer: an assistant's message after another one (first: f.jsonl:3)",
    ]
    assert made.summary().splitlines()[0] == "read 4, kept 1, dropped_bad 3"
    assert made.summary().splitlines()[1:] == [f"  {note}" for note in made.notes]


def test_what_a_template_refuses_is_dropped_too(public: ModuleType, learnt: Made) -> None:
    tokenizer = public.byte_level(public.GEMMA_2, "<eos>")
    values = rows({"messages": [USER, ANSWER]}, {"messages": [GREETING, USER, ANSWER]})
    with pytest.raises(DataError, match="f.jsonl:2: the chat template refuses this conversation: Conversation roles"):
        prepare_examples(values, tokenizer, max_length=50)
    made = prepare_examples(values, tokenizer, max_length=50, on_bad_row="drop")
    assert made.counts["dropped_bad"] == 1


def test_prompts_and_pairs_are_dropped_alike(tiny_tokenizer: Any) -> None:
    asked = prepare_prompts(rows({"prompt": 3}, {"prompt": "x"}), tiny_tokenizer, max_length=9, on_bad_row="drop")
    assert (asked.counts["dropped_bad"], [prompt.raw for prompt in asked.items]) == (1, ["x"])
    values = rows({"chosen": "a", "rejected": None}, {"chosen": "a", "rejected": "b"}, {"chosen": "a"})
    pairs = prepare_pairs(values, tiny_tokenizer, max_length=9, on_bad_row="drop")
    assert (pairs.counts["dropped_bad"], len(pairs.items)) == (2, 1)


def test_where_nothing_is_left_the_reasons_are_named(tiny_tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"dropped_bad 1\) .*; 1 row dropped: no answer: .* \(first: f.jsonl:1\)$"):
        prepare_examples(rows({"messages": [USER]}), tiny_tokenizer, max_length=50, on_bad_row="drop")
    with pytest.raises(DataError, match="f.jsonl:1: needed columns"):
        prepare_examples(rows({"x": 1}, {"y": 2}), tiny_tokenizer, max_length=50, on_bad_row="drop")


@pytest.mark.parametrize(("verb", "section"), [("sft", "data"), ("ppo", "prompts")])
def test_the_command_line_stops_or_drops_and_says_so(
    in_the_repository: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, section: str
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": 3, "completion": "b"}\n{"prompt": "To me", "completion": " it was."}\n')
    small = {
        "sft": ["steps=1", "epochs=null", "batch_size=1", "eval_data=null"],
        "ppo": ["model.path=data/tiny_model", "model.random_init=true", "steps=1", "rollout_batch_size=2", "epochs=1"],
    }[verb]
    small += ["rewards=[{kind: length, at_most: 2}]", "checkpoints.every=null"] if verb == "ppo" else []
    command = [verb, "--config", f"configs/smoke/{verb}.yaml", f"{section}.path={data}", *small]
    assert main([*command, f"output_dir={tmp_path / 'one'}"]) == 3
    assert f"{data}:1: prompt must be text" in capsys.readouterr().err
    assert main([*command, f"output_dir={tmp_path / 'two'}", f"{section}.on_bad_row=drop"]) == 0
    printed = capsys.readouterr().out
    assert "read 2, kept 1, dropped_bad 1\n" in printed
    assert f"1 row dropped: prompt must be text or a list of messages (first: {data}:1)\n" in printed


def test_a_stream_of_prompts_drops_them_as_a_list_does(workshop: Path) -> None:
    settings = PPOSettings(
        steps=1, rollout_batch_size=2, minibatches=1, prompts={"on_bad_row": "drop"}, model={"precision": "float32"}
    )
    reward = {"kind": "length", "at_most": 2}
    with PPOTrainer(str(workshop / "policy"), None, reward, None, settings) as trainer:
        given: list[Any] = [{"prompt": 3}, "a", {"other": 1}, "b", "c"]
        (batch,) = trainer.batches(iter(given))
        assert [prompt.raw for prompt in batch] == ["a", "b"]


FAULTY: dict[str, tuple[str, str, str, str]] = {
    "malformed": (
        "f.jsonl",
        '{"prompt": "a", "completion": "b"}\n{"prompt": \n[[\n',
        "malformed JSON at column",
        "malformed JSON",
    ),
    "no object": (
        "f.jsonl",
        '{"prompt": "a", "completion": "b"}\n[1]\n3\n',
        "expected a JSON object, found list",
        "expected a JSON object, found list",
    ),
    "first": (
        "f.jsonl",
        '{"prompt"\n{"prompt": "a", "completion": "b"}\n',
        "malformed JSON at column",
        "malformed JSON",
    ),
    "in an array": (
        "f.json",
        '[{"prompt": "a", "completion": "b"}, 3]',
        "expected a JSON object, found int",
        "expected a JSON object, found int",
    ),
    "cells": (
        "f.csv",
        "prompt,completion\na,b\na\na,b,c\n",
        "expected 2 cells",
        "another number of cells than in the header",
    ),
}


@pytest.mark.parametrize("case", FAULTY)
def test_what_cannot_be_read_as_a_row_is_dropped_and_counted_like_any_other_bad_row(
    tiny_tokenizer: Any, tmp_path: Path, case: str
) -> None:
    name, text, fault, reason = FAULTY[case]
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=fault):
        list(stream_rows(tmp_path / name))
    naming = FittingSection(on_bad_row="drop").naming
    made = prepare_examples(stream_rows(tmp_path / name, **naming), tiny_tokenizer, max_length=50, on_bad_row="drop")
    assert made.counts["kept"] == 1 and made.counts["dropped_bad"] == made.counts["read"] - 1
    assert reason in made.notes[0] and made.notes[0].endswith(")")
    if case == "malformed":
        line = 2
        assert made.notes == [f"2 rows dropped: malformed JSON (first: {tmp_path / name}:{line})"]


def test_a_row_without_a_mapped_column_is_dropped_too(tiny_tokenizer: Any) -> None:
    values = rows({"question": "a", "completion": "b"}, {"completion": "b"}, {"question": "c", "completion": "d"})
    naming = FittingSection(column_map={"prompt": "question"}).naming
    with pytest.raises(DataError, match="f.jsonl:2: column_map names 'question'"):
        list(in_our_names(values, **naming))
    naming = FittingSection(column_map={"prompt": "question"}, on_bad_row="drop").naming
    made = prepare_examples(in_our_names(values, **naming), tiny_tokenizer, max_length=50, on_bad_row="drop")
    assert (made.counts["kept"], made.counts["dropped_bad"]) == (2, 1)
    assert made.notes[0].startswith("1 row dropped: column_map names 'question' for 'prompt'")


def test_a_stage_drops_malformed_lines_when_asked(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "A", "completion": " b"}\nnot json\n')
    given = [f"model.path={workshop / 'policy'}", f"data.path={tmp_path / 'rows.jsonl'}", "steps=1"]
    given += [f"output_dir={tmp_path / 'run'}", "model.precision=float32"]
    assert main(["sft", *given]) == 3
    assert "rows.jsonl:2: malformed JSON at column 1" in capsys.readouterr().err
    assert main(["sft", *given, "data.on_bad_row=drop"]) == 0
    assert "1 row dropped: malformed JSON" in capsys.readouterr().out


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": [], "content": "a"}]},
        {"instruction": "a", "output": "b", "history": [None]},
        {"instruction": "a", "output": "b", "history": 5},
        {"messages": "[{" + '"a":[' * 20_000},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": "[" * 20_000},
    ],
    ids=["role", "pair", "history", "messages", "tools"],
)
def test_cells_of_another_type_or_nested_without_end_are_data_errors(tiny_tokenizer: Any, row: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        prepare_examples(rows(row), tiny_tokenizer, max_length=64)
