"""Tokens of chosen episodes with their numbers, as a heat map and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.report.charts.axis import short
from rlhf.report.reading.run import Run
from rlhf.report.reading.samples import Answer
from rlhf.report.sections.answers import clipped

LEVELS = 4
"""Shades on each side of zero."""
EPISODES = 9
EDGE = 0.95
"""The quantile of the magnitudes at which the darkest shade begins."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of each token."""

    key: str
    label: str
    middle: float | None = 0.0
    """What has no colour; None for numbers that are never below 0."""


QUANTITIES = (
    Quantity("advantage", "advantage"),
    Quantity("value", "value"),
    Quantity("kl", "KL, nats"),
    Quantity("ratio", "ratio in the last epoch", 1.0),
    Quantity("surprise", "surprise (-logprob), nats", None),
    Quantity("entropy", "entropy, nats", None),
    Quantity("clipped", "clipped", None),
    Quantity("token_score", "the reward's token score"),
)
"""In the order of the buttons; an episode shows those that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token."""

    text: str
    levels: str
    """A shade for each quantity, separated by blanks."""
    told: str
    """Its numbers in words."""
    cells: list[str]
    is_forced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One episode."""

    title: str
    prompt: str
    tokens: list[Token]
    labels: list[str]
    """Of the quantities that it has."""
    left_out: int
    """Tokens at its end that were not written."""

    @property
    def has_forced(self) -> bool:
        """Whether a reset put tokens at its start."""
        return any(token.is_forced for token in self.tokens)


def episodes_of(run: Run) -> list[Episode]:
    """Return episodes of the first, the middle and the last step that have numbers for each token."""
    traced = [answer for answer in ([] if run.ppo is None else run.ppo.samples) if answer.trace is not None]
    steps = sorted({answer.step or 0 for answer in traced})
    if not steps:
        return []
    chosen = dict.fromkeys((steps[0], steps[len(steps) // 2], steps[-1]))
    return [_episode(answer) for answer in traced if answer.step in chosen][:EPISODES]


def _episode(answer: Answer) -> Episode:
    trace = answer.trace or {}
    texts = [str(text) for text in trace["text"]]
    present = [quantity for quantity in QUANTITIES if _is_there(trace, quantity.key, len(texts))]
    columns = {quantity.key: _numbers(trace, quantity.key) for quantity in present}
    forced = trace.get("forced")
    num_forced = forced if isinstance(forced, int) else 0
    shades = [_levels(columns[quantity.key][num_forced:], quantity) for quantity in present]
    tokens = []
    for place, text in enumerate(texts):
        is_forced = place < num_forced
        numbers = [columns[quantity.key][place] for quantity in present]
        cells = ["" if is_forced else short(number) for number in numbers]
        told = ", ".join(f"{quantity.label} {cell}" for quantity, cell in zip(present, cells, strict=True))
        levels = [0 if is_forced else shade[place - num_forced] for shade in shades]
        tokens.append(
            Token(
                text=text,
                levels=" ".join(map(str, levels)),
                told="forced, not sampled" if is_forced else told,
                cells=cells,
                is_forced=is_forced,
            )
        )
    score = "" if answer.score is None else f", score {answer.score:.3g}"
    return Episode(
        title=f"Step {answer.step}{score}",
        prompt=clipped(answer.prompt),
        tokens=tokens,
        labels=[quantity.label for quantity in present],
        left_out=max(0, (answer.tokens or len(texts)) - len(texts)),
    )


def _is_there(trace: Any, key: str, length: int) -> bool:
    """Whether every token has the number; token scores of a reward that gives none are all 0, and are not shown."""
    numbers = _numbers(trace, key)
    return len(numbers) == length and (key != "token_score" or any(numbers))


def _numbers(trace: Any, key: str) -> list[float]:
    values = trace.get(key)
    is_whole = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    return [float(value) for value in values] if is_whole else []


def _levels(values: Sequence[float], quantity: Quantity) -> list[int]:
    """Return a shade for each number: 0 none, up to 4 above the middle, down to -4 below it."""
    offsets = np.array(values) - (quantity.middle or 0.0)
    if not len(offsets) or not np.abs(offsets).max() > 0:
        return [0] * len(offsets)
    edge = float(np.quantile(np.abs(offsets), EDGE)) or float(np.abs(offsets).max())
    shades = np.sign(offsets) * np.ceil(np.clip(np.abs(offsets) / edge, 0, 1) * LEVELS - 0.5)
    return [int(shade) for shade in shades]
