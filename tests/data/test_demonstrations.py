"""Tests of rlhf.data.demonstrations."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_prompts
from rlhf.errors import DataError

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "ab"}


def rows(*values: dict[str, Any]) -> list[Row]:
    return [Row(value, f"f.jsonl:{number}") for number, value in enumerate(values, start=1)]


def made(tokenizer: PreTrainedTokenizerFast, *values: dict[str, Any], **options: Any) -> Any:
    return prepare_demonstrations(rows(*values), tokenizer, **{"max_length": 50, **options})


@pytest.mark.parametrize(
    ("row", "response"),
    [
        ({"prompt": "xy", "completion": "ab"}, "ab<eos>"),
        ({"prompt": "xy", "chosen": "ab", "rejected": "c"}, "ab<eos>"),
        ({"prompt": [USER], "completion": [ANSWER]}, "ab<eos>"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, "ab<eos>"),
    ],
)
def test_the_response_is_the_completion_or_what_was_chosen(
    tiny_tokenizer: PreTrainedTokenizerFast, row: dict[str, Any], response: str
) -> None:
    (found,) = made(tiny_tokenizer, row).items
    assert tiny_tokenizer.decode(found.response_ids) == response


@pytest.mark.parametrize(("prompt", "completion"), [("xy", "ab"), ([USER], [ANSWER])])
def test_prompt_and_response_are_the_ids_that_sampling_and_sft_see(
    tiny_tokenizer: PreTrainedTokenizerFast, prompt: Any, completion: Any
) -> None:
    row = {"prompt": prompt, "completion": completion, "label": 3}
    (found,) = made(tiny_tokenizer, row).items
    (sampled,) = prepare_prompts(rows(row), tiny_tokenizer, max_length=50).items
    (learnt,) = prepare_examples(rows(row), tiny_tokenizer, max_length=50).items
    assert found.prompt == sampled
    assert (*found.prompt.ids, *found.response_ids) == learnt.input_ids
    assert found.prompt.columns["label"] == 3


def test_a_long_demonstration_loses_the_left_of_its_prompt_or_is_dropped(
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    long, short = {"prompt": "abcdef", "completion": "xyz"}, {"prompt": "a", "completion": "b"}
    dropped = made(tiny_tokenizer, long, short, max_length=7)
    assert dropped.counts["dropped_long"] == 1 and [d.prompt.raw for d in dropped.items] == ["a"]
    cut = made(tiny_tokenizer, long, short, max_length=7, over_long="cut_left")
    assert cut.counts["cut"] == 1
    assert tiny_tokenizer.decode(cut.items[0].prompt.ids) == "def"
    assert tiny_tokenizer.decode(cut.items[0].response_ids) == "xyz<eos>"


def test_an_empty_response_is_refused_or_skipped(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    values = {"prompt": "a", "completion": ""}, {"prompt": "a", "completion": "b"}
    with pytest.raises(DataError, match=r"f.jsonl:1: empty"):
        made(tiny_tokenizer, *values)
    assert made(tiny_tokenizer, *values, on_empty="skip").counts["dropped_empty"] == 1


@pytest.mark.parametrize(
    "values",
    [
        [{"text": "abc"}],
        [{"prompt": "abc"}],
        [{"chosen": "a", "rejected": "b"}],
        [{"prompt": "x", "chosen": "a", "rejected": "b"}, {"chosen": "a", "rejected": "b"}],
    ],
)
def test_rows_that_demonstrate_nothing_are_refused(
    tiny_tokenizer: PreTrainedTokenizerFast, values: list[dict[str, Any]]
) -> None:
    with pytest.raises(DataError, match=rf"f.jsonl:{len(values)}: needed columns \{{prompt, "):
        made(tiny_tokenizer, *values)
