"""Tests of rlhf.ppo.starts.cut_laws."""

from collections.abc import Sequence

import pytest
from pydantic import TypeAdapter
from transformers import PreTrainedTokenizerFast

from rlhf.config.resets import AnnealedCut, Cut
from rlhf.ppo.starts.cut_laws import annealed_share, cut_law, sentence_ends


def lengths(tokenizer: PreTrainedTokenizerFast, longest: int, progress: float = 0.0, **cut: object) -> list[int]:
    law = cut_law(TypeAdapter(Cut).validate_python(cut), tokenizer)
    return list(law(tuple(range(40, 60)), longest, progress))


def test_uniform_takes_every_prefix_but_the_empty_one(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert lengths(tiny_tokenizer, 4, law="uniform") == [1, 2, 3, 4]
    assert lengths(tiny_tokenizer, 1, law="uniform") == [1]


@pytest.mark.parametrize(("share", "longest", "length"), [(0.5, 4, 2), (0.5, 5, 3), (1.0, 5, 5), (0.01, 5, 1)])
def test_fixed_takes_its_share_of_the_longest_prefix(
    tiny_tokenizer: PreTrainedTokenizerFast, share: float, longest: int, length: int
) -> None:
    """0.5 * 5 = 2.5 is rounded up to 3; 0.01 * 5 = 0.05 is raised to one token."""
    assert lengths(tiny_tokenizer, longest, law="fixed", share=share) == [length]


def test_annealed_begins_at_the_longest_prefix_and_ends_at_the_prompt(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    taken = [lengths(tiny_tokenizer, 8, step / 10, law="annealed") for step in range(10)]
    # until = 0.5: shares 1, 0.8, 0.6, 0.4, 0.2, then 0; times 8: 8, 6.4, 4.8, 3.2, 1.6
    assert taken == [[8], [6], [5], [3], [2], [0], [0], [0], [0], [0]]


def test_annealed_goes_in_a_straight_line_between_its_ends() -> None:
    cut = AnnealedCut(law="annealed", longest=0.8, shortest=0.2, until=1.0)
    assert [annealed_share(cut, progress) for progress in (0.0, 0.5, 1.0)] == pytest.approx([0.8, 0.5, 0.2], abs=1e-12)


def _ends(tokenizer: PreTrainedTokenizerFast, text: str, longest: int = 99) -> list[str]:
    ids: Sequence[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.decode(ids[:length]) for length in sentence_ends(ids, longest, tokenizer)]


def test_sentence_cuts_after_each_sentence_that_another_one_follows(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    text = 'Good. So "was it?" I asked! Line\nnext 3.5 end.'
    assert _ends(tiny_tokenizer, text) == ["Good.", 'Good. So "was it?"', 'Good. So "was it?" I asked!', text[:33]]
    assert _ends(tiny_tokenizer, text, longest=20) == ["Good.", 'Good. So "was it?"']
    assert _ends(tiny_tokenizer, "One sentence.") == _ends(tiny_tokenizer, "One sentence. ") == []


def test_without_a_sentence_end_inside_the_law_begins_at_the_prompt(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    assert lengths(tiny_tokenizer, 9, law="sentence") == [0]


def test_a_token_with_the_end_of_a_sentence_and_more_is_forced_whole(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    class Wide:
        """Two characters a token."""

        def decode(self, ids: list[int], **_: object) -> str:
            return "".join(["ab", "c.", " D", "e. ", "F."][index] for index in ids)

    assert sentence_ends(range(5), 9, Wide()) == [2, 4]
