"""What the tests of inputs share: rows become records through the code of every stage."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.reading.column_names import in_our_names
from rlhf.data.records import Prepared, Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs, prepare_prompts

READERS = {
    "sft": prepare_examples,
    "reward-model": prepare_pairs,
    "ppo": prepare_prompts,
    "resets": prepare_demonstrations,
}

Taken = Callable[..., Prepared[Any]]


@pytest.fixture
def taken(tiny_tokenizer: PreTrainedTokenizerFast) -> Taken:
    """`taken("sft", row, ..., column_map={})` is what a stage makes of rows."""

    def take(
        stage: str, *values: Mapping[str, Any], column_map: Mapping[str, str] | None = None, **options: Any
    ) -> Prepared[Any]:
        rows = (Row(dict(each), f"f.jsonl:{number}") for number, each in enumerate(values, start=1))
        named: Iterable[Row] = in_our_names(rows, column_map=column_map or {}, margin_from=options.pop("margins", None))
        return READERS[stage](named, tiny_tokenizer, **{"max_length": 400, **options})

    return take


@pytest.fixture
def read(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[[Iterable[int]], str]:
    """A function that turns ids into text, special tokens included."""
    return partial(tiny_tokenizer.decode, skip_special_tokens=False)
