"""Held-out records that are also in the training data: they make held-out metrics look too good."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Literal

from rlhf.errors import DataError

OnOverlap = Literal["warn", "error"]


def check_overlap(
    training: Iterable[Hashable],
    heldout: Sequence[Hashable],
    say: Callable[[str], object],
    on_overlap: OnOverlap,
    kind: str = "held-out records",
) -> None:
    """Say how many held-out records are also in the training data; with "error" refuse them.

    Args:
        training: records of the training data.
        heldout: records that are equal only if they are the same.
        say: prints a line.
        on_overlap: "warn" or "error".
        kind: what the held-out records are, for the message.

    Raises:
        DataError: there are some, and `on_overlap` is "error".
    """
    known = set(training)
    num_shared = sum(record in known for record in heldout)
    if num_shared == 0:
        return
    told = f"{num_shared} of {len(heldout)} {kind} are also in the training data"
    if on_overlap == "error":
        raise DataError(f"{told} - take them out of one of the two, or set on_overlap: warn")
    say(f"warning: {told}")
