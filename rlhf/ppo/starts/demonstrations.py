"""Reads the demonstrations that episodes begin in, and finds where a response ended."""

from bisect import bisect_left
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.config.resets import DataDemonstrations
from rlhf.data.demonstrations import prepare_demonstrations
from rlhf.data.records import Demonstration
from rlhf.stage.frame import Frame, load_rows


class Ends:
    """The tokens and stop strings that end a response; no state in which the policy acts contains them."""

    def __init__(self, eos_ids: Sequence[int], stop_strings: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Take the ids of the tokens, and the stop strings."""
        self._eos_ids = frozenset(eos_ids)
        self._stop_strings = tuple(stop_strings)
        self._tokenizer = tokenizer

    def open_part(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the tokens of a response before the one that ended it."""
        end = next((place for place, token in enumerate(ids) if token in self._eos_ids), len(ids))
        if self._stop_strings:
            end = min(end, bisect_left(range(end + 1), True, key=lambda length: self._holds_stop(ids[:length])) - 1)
        return tuple(ids[:end])

    def _holds_stop(self, ids: Sequence[int]) -> bool:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return any(stop in str(text) for stop in self._stop_strings)


def read_demonstrations(
    section: DataDemonstrations, run: Frame, tokenizer: PreTrainedTokenizerBase
) -> list[Demonstration]:
    """Read the rows of a data section.

    Raises:
        DataError: a row cannot be used, or none is left.
    """
    prepared = prepare_demonstrations(load_rows(section), tokenizer, **section.fitting)
    run.report(f"demonstrations: {section.path}", prepared)
    return prepared.items
