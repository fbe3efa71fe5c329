"""When a response is over: an end-of-sequence token, or a stop string in its text."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf.batches import sent


class Decodes(Protocol):
    """What a stop rule needs of a tokenizer: turn token ids into text."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False, **kwargs: Any) -> Any:
        """Return the text of the tokens."""


class StopRule:
    """Says whether a token, or the text of a response, ends it."""

    def __init__(
        self, eos_ids: Sequence[int], stop_strings: Sequence[str], tokenizer: Decodes | None, device: torch.device
    ) -> None:
        """Stop at any of `eos_ids`, or when one of `stop_strings` appears in the text that `tokenizer` gives."""
        if stop_strings and tokenizer is None:
            raise ValueError(f"stop_strings {list(stop_strings)} need a tokenizer, found None")
        if any(not text for text in stop_strings):
            raise ValueError("stop_strings holds an empty string, which every response contains")
        self.eos_ids = sent(torch.tensor(sorted(set(eos_ids)), dtype=torch.int64), device)
        self._stop_strings = tuple(stop_strings)
        self._tokenizer = tokenizer

    @property
    def reads_text(self) -> bool:
        """Whether there are stop strings."""
        return bool(self._stop_strings)

    def by_token(self, ids: Tensor) -> Tensor:
        """Return [B] bool, True where one of the tokens [B] ends a response."""
        return (ids[:, None] == self.eos_ids).any(-1)

    def ends(self, ids: list[int], before: list[int]) -> bool:
        """Whether the last of a response's tokens ends it; `before` are forced tokens, in which a stop may begin."""
        return bool(self.by_token(torch.tensor(ids[-1:]))[0]) or (self.reads_text and self.by_text([*before, *ids]))

    def by_text(self, ids: list[int]) -> bool:
        """Whether the text of a response holds a stop string.

        Decodes the whole response: one character may take several tokens, and a stop string may begin anywhere.
        """
        assert self._tokenizer is not None
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return any(stop in text for stop in self._stop_strings)
