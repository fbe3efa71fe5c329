"""What the tests of unusual inputs share: public chat templates, and a tokenizer for each."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_prompts

HERE = Path(__file__).parent


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
