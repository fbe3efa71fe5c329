"""A few rows of a source as the stage will see them, and how many the source will give."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from rlhf.config.shared import DataSection
from rlhf.data.records import Prepared
from rlhf.fetch import resolve
from rlhf.forecast.origin import Unknown
from rlhf.stage.frame import load_rows
from rlhf.stage.supervised import Source

T = TypeVar("T")
R = TypeVar("R")
LOOKED_AT = 400
"""Most rows that are tokenised; at least half as many are, where a source has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known(Generic[T]):
    """Some of a source's records."""

    items: Sequence[T]
    num: int
    """All records that the stage will have."""
    seconds: float
    """The time that making all of them takes."""


def looked_at(section: DataSection, prepare: Callable[[Source], Prepared[T]]) -> Known[T]:
    """Make records of rows that are spread evenly over a source, and count the others.

    Raises:
        Unknown: the source is not on this machine.
        RlhfError: a row cannot be used: the stage will say so too.
    """
    path = resolve(section.path)
    if not Path(path).exists():
        raise Unknown(f"{section.path} is not on this machine")
    started = time.perf_counter()
    rows, num = spread(load_rows(section), LOOKED_AT)
    reading, started = time.perf_counter() - started, time.perf_counter()
    items = prepare(Source(section.path, rows, section)).items
    making = time.perf_counter() - started
    share = num / len(rows)
    return Known(items=items, num=round(share * len(items)), seconds=reading + share * making)


def spread(rows: Iterable[R], most: int) -> tuple[list[R], int]:
    """Return at most `most` rows at equal distances, the first among them, and how many there are."""
    kept: list[R] = []
    stride, num = 1, 0
    for row in rows:
        if num % stride == 0:
            kept.append(row)
        num += 1
        if len(kept) > most:
            kept, stride = kept[::2], 2 * stride
    return kept, num
