"""Tests of rlhf.sampling.stopping."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from rlhf.sampling.stopping import StopRule

CPU = torch.device("cpu")


def _ids(tokenizer: PreTrainedTokenizerFast, *texts: str) -> torch.Tensor:
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])


def _ends(rule: StopRule, ids: torch.Tensor, before: list[list[int]] | None = None) -> list[bool]:
    """Say of each row of tokens whether the last one completes the response."""
    starts = before or [[] for _ in ids]
    texts = [rule.reads_text and rule.by_text([*start, *row]) for start, row in zip(starts, ids.tolist(), strict=True)]
    return [text or token for text, token in zip(texts, rule.by_token(ids[:, -1]).tolist(), strict=True)]


def test_any_of_the_eos_ids_ends_a_row_when_it_is_the_last_token() -> None:
    rule = StopRule((7, 9), (), None, CPU)
    assert _ends(rule, torch.tensor([[7, 1], [1, 7], [1, 9], [9, 8]])) == [False, True, True, False]


def test_without_eos_ids_no_token_ends_a_row() -> None:
    assert _ends(StopRule((), (), None, CPU), torch.tensor([[1], [2]])) == [False, False]


def test_a_stop_string_ends_a_row_wherever_it_stands_in_the_text(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rule = StopRule((), ("end", "\n\n"), tiny_tokenizer, CPU)
    ids = _ids(tiny_tokenizer, "an end", "endure", "e n d.", "what\n\n", "one\ntw", "eend e")
    assert _ends(rule, ids) == [True, True, False, True, False, True]


def test_a_special_token_can_be_a_stop_string(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rule = StopRule((), ("<bos>",), tiny_tokenizer, CPU)
    assert _ends(rule, torch.tensor([[9, tiny_tokenizer.bos_token_id], [9, 9]])) == [True, False]


def test_stop_strings_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(ValueError, match="need a tokenizer"):
        StopRule((), ("x",), None, CPU)


def test_an_empty_stop_string_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ValueError, match="empty string"):
        StopRule((), ("x", ""), tiny_tokenizer, CPU)


def test_an_eos_ends_a_row_beside_stop_strings(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rule = StopRule((2,), ("end",), tiny_tokenizer, CPU)
    assert _ends(rule, torch.tensor([[9, 2], [9, 9]])) == [True, False]


def test_a_stop_string_may_begin_in_the_tokens_before(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rule = StopRule((2,), ("end",), tiny_tokenizer, CPU)
    before = _ids(tiny_tokenizer, "an e", "an x", "an e").tolist()
    ids = _ids(tiny_tokenizer, "nd", "nd", "n ")
    assert _ends(rule, ids, before) == [True, False, False]
    assert _ends(rule, ids) == [False, False, False]
