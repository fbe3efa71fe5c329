"""What happens to rows that do not fit, as every function that makes records of rows takes it."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from rlhf.data import cells
from rlhf.data.bad_rows import BadRow, OnBadRow
from rlhf.data.conversations.system import System, with_system
from rlhf.data.intake import OnEmpty
from rlhf.data.over_long import OverLong
from rlhf.data.records import Message, Row


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """The settings of one source of rows."""

    max_length: int
    """Tokens of a sequence; for prompts to sample from, of the prompt alone."""
    over_long: OverLong = "drop"
    """What to do with longer ones; only prompts are ever cut."""
    on_empty: OnEmpty = "error"
    """What to do with rows with an empty prompt, completion or message."""
    on_bad_row: OnBadRow = "stop"
    """Stop at a row that cannot be used, or drop it and count it by its reason."""
    system: System = "keep"
    """What becomes of system messages."""

    def field(self, row: Row, column: str) -> str | list[Message]:
        """Return a cell that holds text or messages, with its system messages as they are to be.

        Raises:
            BadRow: the cell holds something else.
        """
        cell = cells.text_or_messages(row, column)
        if isinstance(cell, str):
            return cell
        messages = with_system(cell, self.system, row.location)
        if not messages:
            raise BadRow(row.location, f"{column} holds no message but the system's, which system: drop leaves out")
        return messages


class FittingKeys(TypedDict):
    """The same settings as keyword arguments."""

    max_length: int
    over_long: NotRequired[OverLong]
    on_empty: NotRequired[OnEmpty]
    on_bad_row: NotRequired[OnBadRow]
    system: NotRequired[System]
