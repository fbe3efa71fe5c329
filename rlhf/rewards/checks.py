"""The check that every score goes through, whichever reward computed it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from rlhf.errors import RewardError
from rlhf.printable import quoted
from rlhf.rewards.protocol import Score

T = TypeVar("T", bound=Score)

# Scores are stored as float32, in which a larger finite number becomes inf.
_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the score of one episode."""

    message: str
    is_number: bool
    """A number, but NaN, infinite or beyond float32: `on_nan` decides, not `on_error`."""


class BadScores(RewardError):
    """Some episodes have no usable score; the message is that of the first of them."""

    def __init__(self, scores: Sequence[Score], problems: dict[int, Problem]) -> None:
        """Take the scores of all episodes (None where there is none) and the problems by index."""
        super().__init__(problems[min(problems)].message)
        self.scores = list(scores)
        self.problems = problems


class Unusable(Exception):
    """A score cannot be used; the text says why, as in "score 2 is nan"."""

    def __init__(self, why: str, *, is_number: bool = False) -> None:
        super().__init__(why)
        self.is_number = is_number


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
        BadScores: scores that are not finite numbers, such as None and text. True is 1 and False 0.
        RewardError: another container or length.
    """
    return checked(raw, num, where, prompts, lambda score, index: number(score))


def checked(
    raw: object,
    num: int,
    where: str,
    prompts: Sequence[object] | None,
    read: Callable[[object, int], T],
    *,
    first: int = 0,
) -> list[T]:
    """Do what `checked_scores` does for scores of any kind.

    Args:
        raw: what the reward returned.
        num: how many scores are expected.
        where: names the reward in the message.
        prompts: [num] quoted in the message of a bad score.
        read: turns the score at an index into a usable one, or raises `Unusable`.
        first: the index of the first episode in messages.

    Raises:
        BadScores: `read` refused some.
        RewardError: another container or length.
    """
    scores = _as_list(raw)
    if scores is None or len(scores) != num:
        raise RewardError(f"{where}: expected {num} {'float' if num == 1 else 'floats'}, got {_describe(raw)}")
    good: list[T | None] = []
    problems: dict[int, Problem] = {}
    for index, score in enumerate(scores):
        try:
            good.append(read(score, index))
        except Unusable as problem:
            good.append(None)
            prompt = "" if prompts is None else f" for the prompt {quoted(prompts[index])}"
            message = f"{where}: score {first + index} {problem}{prompt}; expected one finite float per response"
            problems[index] = Problem(message, problem.is_number)
    if problems:
        raise BadScores(good, problems)
    return good  # type: ignore[return-value]  # without problems each was read


def number(score: object) -> float:
    """Return a score as a finite float.

    Raises:
        Unusable: it is not one.
    """
    # A list may hold 0-D tensors or numpy scalars.
    found = score.tolist() if hasattr(score, "tolist") else score
    if not isinstance(found, int | float):  # a truth value is an int: True is 1
        raise Unusable(f"is {_describe_score(found)}")
    if not abs(found) <= _LARGEST:  # a comparison with NaN is False
        raise Unusable(f"is {_describe_score(found)}", is_number=True)
    return float(found)


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


def _describe_score(found: object) -> str:
    if found is None or isinstance(found, float):
        return str(found)
    if isinstance(found, int):
        return "an int beyond the range of float32"
    return f"{type(found).__name__} {quoted(found)}"
