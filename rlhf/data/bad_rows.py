"""A row that cannot be used: an error by default, left out and counted by its reason with `on_bad_row: drop`."""

from typing import Literal

from rlhf.errors import DataError

OnBadRow = Literal["stop", "drop"]


class BadRow(DataError):
    """One row that cannot be used. `reason` is the same for all rows with the same fault, so that they are counted."""

    def __init__(self, location: str, fault: str, reason: str = "") -> None:
        """Say where the row is and what is wrong; `reason` leaves out what differs from row to row."""
        super().__init__(f"{location}: {fault}")
        self.reason = reason or fault


def reason_of(error: DataError, location: str) -> str:
    """Return what an error says about the row at `location`, without the location."""
    return error.reason if isinstance(error, BadRow) else str(error).removeprefix(f"{location}: ")
