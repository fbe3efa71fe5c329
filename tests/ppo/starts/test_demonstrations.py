"""Tests of rlhf.ppo.starts.demonstrations."""

import pytest
from transformers import PreTrainedTokenizerFast

from rlhf.ppo.starts.demonstrations import Ends


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("abc<eos>", "abc"),
        ("ab<unk>c<eos>", "ab"),
        ("abc", "abc"),
        ("<eos>", ""),
        ("one end. two<eos>", "one en"),
        ("a\nb\n\nc end", "a\nb\n"),
        ("end", "en"),
    ],
)
def test_the_open_part_stops_before_what_ended_the_response(
    tiny_tokenizer: PreTrainedTokenizerFast, text: str, kept: str
) -> None:
    """One token a character: the token that completes a stop string is left out, those before it stay."""
    ends = Ends((2, 3), ("end", "\n\n"), tiny_tokenizer)
    ids = tiny_tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tiny_tokenizer.decode(list(ends.open_part(ids))) == kept


def test_without_stop_strings_only_the_eos_ends(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert Ends((2,), (), tiny_tokenizer).open_part([5, 3, 6, 2, 7]) == (5, 3, 6)
