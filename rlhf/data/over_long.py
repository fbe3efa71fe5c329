"""What becomes of a sequence that is too long: dropped, an error, or cut at the left of its prompt."""

from collections.abc import Sequence
from typing import Literal

from rlhf.data.encoder import Encoder
from rlhf.data.records import Row
from rlhf.errors import DataError

OverLong = Literal["drop", "cut_left", "error"]


def kept_prompt(
    prompt_ids: Sequence[int],
    num_response: int,
    *,
    max_length: int,
    over_long: OverLong,
    bos_ids: Sequence[int],
    location: str,
) -> list[int] | None:
    """Return the prompt that fits before a response, or None to drop the sequence.

    Args:
        prompt_ids: may be empty.
        num_response: tokens of the response, which is never cut.
        max_length: tokens of prompt and response together.
        over_long: "drop", "cut_left" (the prompt keeps its BOS and its last tokens; if only the BOS would be left, the
            sequence is dropped) or "error".
        bos_ids: the BOS that a cut prompt keeps in front, or nothing.
        location: of the row.

    Raises:
        DataError: too long, and `over_long` is "error".
    """
    num_tokens = len(prompt_ids) + num_response
    if num_tokens <= max_length:
        return list(prompt_ids)
    if over_long == "error":
        raise DataError(
            f"{location}: {num_tokens} tokens ({len(prompt_ids)} prompt + {num_response} response), at most "
            f"{max_length} - raise max_length, or set over_long to drop or cut_left"
        )
    head = list(bos_ids) if list(prompt_ids[: len(bos_ids)]) == list(bos_ids) else []
    num_tail = max_length - num_response - len(head)
    if over_long == "drop" or num_tail < 1 or not prompt_ids:
        return None
    return [*head, *prompt_ids[-num_tail:]]


def fitted(
    prompt_ids: Sequence[int], num_response: int, encoder: Encoder, row: Row, *, max_length: int, over_long: OverLong
) -> list[int] | None:
    """Return `kept_prompt` for a row, with the BOS of the encoder that tokenized it."""
    return kept_prompt(
        prompt_ids,
        num_response,
        max_length=max_length,
        over_long=over_long,
        bos_ids=encoder.bos_ids,
        location=row.location,
    )


def fate_of(kept: Sequence[int], prompt_ids: Sequence[int]) -> str:
    """Return what became of a row whose prompt `kept` was `prompt_ids`: "kept" or "cut"."""
    return "cut" if len(kept) < len(prompt_ids) else "kept"
