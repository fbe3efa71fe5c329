"""What the tests of inputs share: public chat templates, a tokenizer for each, rows through the code of every stage."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.reading.column_names import in_our_names
from rlhf.data.records import Prepared, Row
from rlhf.data.tokenization import prepare_examples, prepare_pairs, prepare_prompts

HERE = Path(__file__).parent
READERS = {
    "sft": prepare_examples,
    "reward-model": prepare_pairs,
    "ppo": prepare_prompts,
    "resets": prepare_demonstrations,
}

Taken = Callable[..., Prepared[Any]]


@pytest.fixture(scope="session")
def public(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `templates.py`."""
    return module(HERE / "templates.py")


@pytest.fixture
def examples() -> Callable[..., Any]:
    """A function from a tokenizer and the columns of a row to its examples; `options` are those of the section."""

    def made(tokenizer: PreTrainedTokenizerBase, options: dict[str, Any] | None = None, **columns: Any) -> Any:
        return prepare_examples([Row(columns, "f.jsonl:1")], tokenizer, **{"max_length": 900, **(options or {})})

    return made


@pytest.fixture
def sampled() -> Callable[..., tuple[int, ...]]:
    """A function from a tokenizer and the columns of a prompt to the ids that sampling reads."""

    def ids(tokenizer: PreTrainedTokenizerBase, options: dict[str, Any] | None = None, **columns: Any) -> Any:
        prompts = prepare_prompts([Row(columns, "f.jsonl:1")], tokenizer, **{"max_length": 900, **(options or {})})
        return prompts.items[0].ids

    return ids


@pytest.fixture
def learnt() -> Callable[[PreTrainedTokenizerBase, Any], str]:
    """A function from a tokenizer and an example to the text that is learnt."""

    def text(tokenizer: PreTrainedTokenizerBase, example: Any) -> str:
        pairs = zip(example.input_ids, example.loss_mask, strict=True)
        return str(tokenizer.decode([token for token, counts in pairs if counts]))

    return text


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
