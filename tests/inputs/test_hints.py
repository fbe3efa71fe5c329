"""Every hint works when it is followed."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.api.sft import SFTTrainer
from rlhf.config import SFTSettings
from rlhf.data.reading.near_names import _OTHER_WORDS
from rlhf.data.reading.rows import read_rows
from rlhf.errors import DataError

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
STAGES = ["sft", "reward-model", "ppo", "resets"]
WORDS = [
    *itertools.chain(*_OTHER_WORDS.values()),
    *_OTHER_WORDS,
    "Prompt",
    "promt",
    "prompt_id",
    "completions",
    "system",
]
CELLS = {"text": "Yo", "messages": TALK, "number": 3, "empty": []}


def followed(message: str) -> dict[str, str] | None:
    """Return the column map that a message suggests."""
    found = re.search(r"column_map: \{([^}]*)\}", message)
    return None if found is None else dict(pair.split(": ") for pair in found[1].split(", "))


def outcome(taken: Callable, stage: str, row: dict[str, Any], column_map: dict[str, str]) -> tuple[str, bool]:
    """Return what was said, and whether the row was taken."""
    try:
        return taken(stage, row, column_map=column_map).description, True
    except DataError as error:
        return str(error), False


def hint_is_wrong(hint: dict[str, str], answer: str) -> bool:
    """Tell whether columns are still missing, or one that was suggested cannot be what it was suggested for."""
    complaints = ("needed columns", "must both be", *(f"f.jsonl:1: {name}" for name in hint))
    return any(complaint in answer for complaint in complaints)


@pytest.mark.sweep
@pytest.mark.parametrize("stage", STAGES)
def test_a_suggested_column_map_is_right_for_any_two_columns(stage: str, taken: Callable) -> None:
    num_hints = 0
    for one, other in itertools.permutations(WORDS, 2):
        for cell in CELLS.values():
            row = {one: "Hi", other: cell}
            said, _ = outcome(taken, stage, row, {})
            hint = followed(said)
            if hint is not None:
                num_hints += 1
                answer, was_taken = outcome(taken, stage, row, hint)
                # Not the hint's doing: equal texts are no preference, a conversation that is a prompt has no answer.
                assert was_taken or not hint_is_wrong(hint, answer), (row, said, answer)
    assert num_hints > 0


@pytest.mark.parametrize(
    ("stage", "row", "hint"),
    [
        ("sft", {"question": "Hi", "answer": "Yo"}, {"prompt": "question", "completion": "answer"}),
        ("sft", {"query": "Hi", "answer": "Yo"}, {"prompt": "query", "completion": "answer"}),
        ("sft", {"chat": TALK}, {"messages": "chat"}),
        ("sft", {"content": "Hi"}, {"text": "content"}),
        ("ppo", {"query": "Hi"}, {"prompt": "query"}),
        ("ppo", {"instruction": "Hi"}, {"prompt": "instruction"}),
        ("reward-model", {"prompt": "a", "better": "b", "worse": "c"}, {"chosen": "better", "rejected": "worse"}),
        ("resets", {"question": "Hi", "answer": "Yo"}, {"prompt": "question", "completion": "answer"}),
    ],
)
def test_a_hint_names_everything_that_is_missing(
    stage: str, row: dict[str, Any], hint: dict[str, str], taken: Callable
) -> None:
    said, was_taken = outcome(taken, stage, row, {})
    assert not was_taken and followed(said) == hint
    assert outcome(taken, stage, row, hint)[1]


@pytest.mark.parametrize(
    ("stage", "row"),
    [
        ("sft", {"question": "Hi"}),  # nothing could be the completion
        ("sft", {"output": "Hi", "label": 1}),
        ("reward-model", {"better": "b"}),
        ("ppo", {"prompt_id": "a1f3"}),
        ("ppo", {"answer": "Yo"}),
        ("sft", {"chat": "Hi", "label": 3}),
        ("sft", {"completion": "Hi", "prompts": ["a", "b"]}),
    ],
)
def test_there_is_no_hint_where_none_would_do(stage: str, row: dict[str, Any], taken: Callable) -> None:
    said, was_taken = outcome(taken, stage, row, {})
    assert not was_taken and followed(said) is None


def test_a_later_row_gets_no_hint_that_would_be_wrong_for_the_first(taken: Callable) -> None:
    with pytest.raises(
        DataError, match=r"f.jsonl:2: needed columns \{prompt, completion\} like f.jsonl:1, found"
    ) as one:
        taken("sft", {"prompt": "a", "completion": "b"}, {"promt": "a", "completion": "b"})
    with pytest.raises(DataError, match=r"f.jsonl:2: column_map names 'a' for 'text'") as other:
        taken("sft", {"a": "x"}, {"A": "x"}, column_map={"text": "a"})
    assert followed(str(one.value)) is followed(str(other.value)) is None


def test_a_misspelt_column_map_is_given_back_whole(taken: Callable) -> None:
    row = {"question": "Hi", "answer": "Yo"}
    said, _ = outcome(taken, "sft", row, {"prompt": "questoin", "completion": "answer"})
    assert followed(said) == {"prompt": "question", "completion": "answer"}
    assert outcome(taken, "sft", row, {"prompt": "question", "completion": "answer"})[1]


def test_python_has_a_place_for_every_hint(workshop: Path) -> None:
    rows = [{"question": "Hi", "answer": "Yo"}] * 2
    settings = {"steps": 1, "batch_size": 2}
    with pytest.raises(DataError, match=r"data:row 1: needed columns .* column_map") as caught:
        SFTTrainer(str(workshop / "policy"), config=SFTSettings(**settings)).train(rows)
    config = SFTSettings(**settings, data={"column_map": followed(str(caught.value))})
    assert len(SFTTrainer(str(workshop / "policy"), config=config).train(rows)) == 1


@pytest.mark.slow
def test_ppo_from_python_has_it_for_lists_and_streams(workshop: Path, tiny: ModuleType) -> None:
    rows = [{"query": text} for text in tiny.BEGINNINGS]
    with pytest.raises(
        DataError, match=r"prompt 1: needed columns \{prompt\}, found \['query'\]; did you mean"
    ) as caught:
        tiny.ppo_trainer(workshop, steps=1).train(rows)
    hint = followed(str(caught.value))
    for given in (rows, iter(rows)):
        trainer = tiny.ppo_trainer(workshop, steps=1, prompts={"path": "x", "column_map": hint})
        assert len(trainer.train(given)) == 1


def test_what_other_messages_advise_works(tmp_path: Path, taken: Callable) -> None:
    empty, long = {"prompt": "a", "completion": ""}, {"prompt": "a" * 50, "completion": "b"}
    good = {"prompt": "a", "completion": "b"}
    with pytest.raises(DataError, match="set on_empty: skip"):
        taken("sft", empty, good)
    assert taken("sft", empty, good, on_empty="skip").counts["kept"] == 1
    with pytest.raises(DataError, match="raise max_length, or set over_long to drop or cut_left"):
        taken("sft", long, good, max_length=9, over_long="error")
    for advice in ({"max_length": 90}, {"over_long": "drop"}, {"over_long": "cut_left"}):
        assert taken("sft", long, good, **{"max_length": 9, **advice}).counts["kept"] >= 1
    (tmp_path / "a.jsonl").write_text('[{"text": "a"}]\n')
    with pytest.raises(
        DataError, match=r"expected a JSON object, found list .* name the file .json if it holds one arr"
    ):
        read_rows(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").rename(tmp_path / "a.json")
    assert read_rows(tmp_path / "a.json")[0].values == {"text": "a"}
