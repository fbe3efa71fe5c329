"""Whatever rows hold, they become records or a documented error."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from odd_values import ANYTHING, as_json, damaged, trials
from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.reading.rows import read_rows
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs, prepare_prompts
from rlhf.errors import RlhfError

TALK = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
    {"role": "assistant", "content": "yes", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
    {"role": "tool", "content": "2"},
    {"role": "assistant", "content": "well"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
GOOD: list[dict[str, Any]] = [
    {"text": "a film"},
    {"prompt": "a", "completion": " film"},
    {"messages": TALK, "tools": TOOLS},
    {"prompt": TALK[:2], "completion": TALK[4:]},
    {"prompt": "a", "chosen": " b", "rejected": " c", "margin": 1.5},
    {"prompt": TALK[:2], "chosen": TALK[4:], "rejected": [{"role": "assistant", "content": "no"}]},
    {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yes"}]},
    {"instruction": "say", "input": "a", "output": "b", "history": [["q", "a"]], "system": "s"},
    {"query": "q", "response": "r", "rejected_response": "s", "history": [["q", "a"]]},
]
COLUMNS = sorted({name for row in GOOD for name in row})
ROWS = st.lists(
    st.sampled_from(GOOD).flatmap(lambda row: damaged(row, COLUMNS))
    | st.dictionaries(st.sampled_from(COLUMNS), ANYTHING),
    min_size=1,
    max_size=2,
)
READERS: list[Callable[..., object]] = [
    prepare_examples,
    lambda rows, tokenizer, **keys: prepare_examples(rows, tokenizer, loss_on="assistant", **keys),
    prepare_pairs,
    prepare_prompts,
    prepare_demonstrations,
]


@trials(200)
@given(rows=ROWS, read=st.sampled_from(READERS), on_bad_row=st.sampled_from(["error", "skip"]))
def test_any_rows_become_records_or_a_documented_error(
    tiny_tokenizer: PreTrainedTokenizerBase, rows: list[Any], read: Callable[..., object], on_bad_row: str
) -> None:
    given_rows = [Row(row, f"x.jsonl:{n}") for n, row in enumerate(rows, 1) if isinstance(row, dict)]
    with suppress(RlhfError):
        read(given_rows, tiny_tokenizer, max_length=64, on_bad_row=on_bad_row)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@trials(100)
@given(rows=ROWS)
def test_any_rows_of_a_file_become_records_or_a_documented_error(
    name: str, tmp_path: Path, tiny_tokenizer: PreTrainedTokenizerBase, rows: list[Any]
) -> None:
    path = tmp_path / name
    lines = [as_json(row) for row in rows]
    path.write_bytes(b"\n".join(lines) if name.endswith("l") else b"[" + b",".join(lines) + b"]")
    with suppress(RlhfError):
        prepare_prompts(read_rows(path), tiny_tokenizer, max_length=64)
