"""When a response is over: an end-of-sequence token, or a stop string in its text."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Decodes(Protocol):
    """What a stop rule needs of a tokenizer: turn token ids into text."""

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False, **kwargs: Any) -> Any:
        """Return the text of the tokens."""


class StopRule:
    """Says of each row whether its last token ends it."""

    def __init__(
        self, eos_ids: Sequence[int], stop_strings: Sequence[str], tokenizer: Decodes | None, device: torch.device
    ) -> None:
        """Stop at any of `eos_ids`, or when one of `stop_strings` appears in the text that `tokenizer` gives."""
        if stop_strings and tokenizer is None:
            raise ValueError(f"stop_strings {list(stop_strings)} need a tokenizer, found None")
        if any(not text for text in stop_strings):
            raise ValueError("stop_strings holds an empty string, which every response contains")
        self.eos_ids = torch.tensor(sorted(set(eos_ids)), dtype=torch.int64, device=device)
        self._stop_strings = tuple(stop_strings)
        self._tokenizer = tokenizer

    def ends(self, response_ids: Tensor, before: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Return [B] bool, True where the last of the tokens [B, t] completes the response.

        `before` holds, row by row, tokens of the response that come before these.

        Decodes the whole response: one character may take several tokens, and a stop string may begin anywhere.
        """
        ended = (response_ids[:, -1:] == self.eos_ids).any(-1)
        if self._stop_strings:
            rows = response_ids.tolist()
            whole = rows if before is None else [[*start, *ids] for start, ids in zip(before, rows, strict=True)]
            found = [self._holds_stop_string(ids) for ids in whole]
            ended = ended | torch.tensor(found, dtype=torch.bool, device=ended.device)
        return ended

    def _holds_stop_string(self, ids: list[int]) -> bool:
        assert self._tokenizer is not None
        text = self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return any(stop in text for stop in self._stop_strings)
