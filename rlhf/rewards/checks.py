"""The check that every score passes, whoever computed it."""

from collections.abc import Sequence

import torch

from rlhf.errors import RewardError

# Scores travel as float32, in which a larger finite number becomes inf.
_LARGEST = torch.finfo(torch.float32).max
_QUOTE_CHARS = 80


def checked_scores(raw: object, num: int, where: str, prompts: Sequence[object] | None = None) -> list[float]:
    """Turn what a reward returned into floats, or refuse it.

    Args:
        raw: list or tuple of numbers, or a 1-D tensor, array or series, on any device.
        num: how many scores are expected.
        where: names the reward in the message, for example "reward 'my.py:score'".
        prompts: [num] quoted in the message of a bad score.

    Returns:
        `num` finite floats, each within the range of float32.

    Raises:
        RewardError: another container or length, or a score that is not a finite number. True, False, None and text
            are not numbers.
    """
    scores = _as_list(raw)
    if scores is None or len(scores) != num:
        raise RewardError(f"{where}: expected {num} {'float' if num == 1 else 'floats'}, got {_describe(raw)}")
    return [_checked(score, index, where, prompts) for index, score in enumerate(scores)]


def quoted(text: object) -> str:
    """Return `text` on one line, control characters escaped, at most 80 characters long."""
    quote = repr(text[:_QUOTE_CHARS] if isinstance(text, str) else text)
    if not quote.isprintable():  # the repr of a string is printable, that of another object may have several lines
        quote = repr(quote)[1:-1]
    return quote if len(quote) <= _QUOTE_CHARS else quote[: _QUOTE_CHARS - 3] + "..."


def _checked(score: object, index: int, where: str, prompts: Sequence[object] | None) -> float:
    # A list may hold 0-D tensors or numpy scalars.
    number = score.tolist() if hasattr(score, "tolist") else score
    # bool is a subclass of int, and a comparison with NaN is False.
    if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) <= _LARGEST:
        return float(number)
    prompt = "" if prompts is None else f" for the prompt {quoted(prompts[index])}"
    raise RewardError(
        f"{where}: score {index} is {_describe_score(number)}{prompt}; expected one finite float a response"
    )


def _as_list(raw: object) -> list[object] | None:
    if isinstance(raw, list | tuple):
        return list(raw)
    if getattr(raw, "ndim", None) == 1 and hasattr(raw, "tolist"):
        return list(raw.tolist())
    return None


def _describe(raw: object) -> str:
    if raw is None:
        return "None"
    name = type(raw).__name__
    if getattr(raw, "ndim", 1) != 1:
        return f"{name} of shape {list(getattr(raw, 'shape', []))}"
    return f"{name} of {len(raw)}" if hasattr(raw, "__len__") else name


def _describe_score(number: object) -> str:
    if number is None or isinstance(number, bool | float):
        return str(number)
    if isinstance(number, int):
        return "an int beyond the range of float32"
    return f"{type(number).__name__} {quoted(number)}"
