"""Content as a list of parts, as OpenAI's format has it."""

from collections.abc import Callable
from typing import Any

import pytest

from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_examples, prepare_prompts
from rlhf.errors import DataError

USER = {"role": "user", "content": "qr"}
ANSWER = {"role": "assistant", "content": "ab"}
Made = Callable[..., Any]


def parts(*values: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": value} for value in values]


def test_text_parts_are_joined(tiny_tokenizer: Any, examples: Made, sampled: Made) -> None:
    asked, said = {**USER, "content": parts("q", "r")}, {**ANSWER, "content": parts("ab")}
    assert (
        examples(tiny_tokenizer, messages=[asked, said]).items
        == examples(tiny_tokenizer, messages=[USER, ANSWER]).items
    )
    assert sampled(tiny_tokenizer, prompt=[asked]) == sampled(tiny_tokenizer, prompt=[USER])


def test_rewards_see_text(tiny_tokenizer: Any) -> None:
    row = Row({"prompt": [{**USER, "content": parts("q", "r")}]}, "f.jsonl:1")
    assert prepare_prompts([row], tiny_tokenizer, max_length=50).items[0].raw == [USER]


def test_keys_that_datasets_filled_with_null_do_no_harm(tiny_tokenizer: Any, sampled: Made) -> None:
    content = [{"type": "text", "text": "qr", "image_url": None}]
    assert sampled(tiny_tokenizer, prompt=[{**USER, "content": content}]) == sampled(tiny_tokenizer, prompt=[USER])


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio", None])
def test_other_parts_are_refused_and_the_hint_works(tiny_tokenizer: Any, kind: str | None) -> None:
    seen = {**USER, "content": [*parts("q"), {"type": kind, kind or "x": "http://x/y.png"}]}
    values = [Row({"messages": [seen, ANSWER]}, "f.jsonl:1"), Row({"messages": [USER, ANSWER]}, "f.jsonl:2")]
    with pytest.raises(DataError) as refused:
        prepare_examples(values, tiny_tokenizer, max_length=50)
    assert str(refused.value) == (
        f"f.jsonl:1: messages[0].content[1] is of type {kind!r}; models here read text alone - leave it out, or set "
        "on_bad_row: drop"
    )
    made = prepare_examples(values, tiny_tokenizer, max_length=50, on_bad_row="drop")
    assert made.notes == [f"1 row dropped: content holds a part of type {kind!r}, not text (first: f.jsonl:1)"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["q"], r"messages\[0\].content\[0\] must be an object with type and text, found str 'q'"),
        ([], r"messages\[0\].content must be text, found list"),
        ([{"type": "text"}], r"messages\[0\].content\[0\].text must be text, found null"),
        (parts("\ud83d"), r"messages\[0\].content\[0\].text has a lone surrogate"),
    ],
)
def test_malformed_parts_are_named(tiny_tokenizer: Any, examples: Made, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        examples(tiny_tokenizer, messages=[{**USER, "content": content}, ANSWER])


def test_parts_without_text_are_empty(tiny_tokenizer: Any, examples: Made) -> None:
    with pytest.raises(DataError, match="f.jsonl:1: empty text"):
        examples(tiny_tokenizer, messages=[{**USER, "content": parts(" ")}, ANSWER])
