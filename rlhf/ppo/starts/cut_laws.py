"""Where a demonstration is cut: which of its prefixes an episode may begin with.

A law lists the possible prefix lengths; one of them is drawn uniformly.
"""

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.config.resets import AnnealedCut, Cut, FixedCut, SentenceCut

CutLaw = Callable[[Sequence[int], int, float], Sequence[int]]
"""(token ids of a demonstration without what ended it, length of the longest prefix, share of the run that is done)
-> possible prefix lengths, at least one of them; 0 is the prompt alone."""

_SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s)|\n+(?=\S)")


def cut_law(cut: Cut, tokenizer: PreTrainedTokenizerBase) -> CutLaw:
    """Return the law that a section of the config describes."""
    match cut:
        case FixedCut(share=share):
            return lambda ids, longest, progress: [max(1, _rounded(share * longest))]
        case AnnealedCut():
            return lambda ids, longest, progress: [_rounded(annealed_share(cut, progress) * longest)]
        case SentenceCut():
            return lambda ids, longest, progress: sentence_ends(ids, longest, tokenizer) or [0]
        case _:
            return lambda ids, longest, progress: range(1, longest + 1)


def annealed_share(cut: AnnealedCut, progress: float) -> float:
    """Return the share that is forced: it falls linearly from `longest` to `shortest`, then stays there.

    Reset curricula begin near the goal and move away from it: Florensa et al. 2017, arXiv:1707.05300.

    Args:
        cut: the ends of the line.
        progress: share of the run that is done, in [0, 1].
    """
    left = max(0.0, 1.0 - progress / cut.until)
    return cut.shortest + (cut.longest - cut.shortest) * left


def sentence_ends(ids: Sequence[int], longest: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the lengths, up to `longest`, of the prefixes that end with a sentence and leave more text after it.

    A sentence ends at [.!?] before white space, or at the end of a line. A token that goes past the end of a
    sentence is forced whole.
    """

    def text_of(length: int) -> str:
        text = tokenizer.decode(list(ids[:length]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    ends = [match.end() for match in _SENTENCE_END.finditer(text_of(len(ids)).rstrip())]
    lengths = [bisect_left(range(len(ids)), end, key=lambda length: len(text_of(length))) for end in ends]
    return sorted({length for length in lengths if 0 < length <= min(longest, len(ids) - 1)})


def _rounded(number: float) -> int:
    """Round to the nearest integer, halves up: Python's own rounding goes to even numbers."""
    return math.floor(number + 0.5)
