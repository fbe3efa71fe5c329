"""Rows of one type, whatever format they came in: what every stage reads, row by row as they come."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from rlhf.data.bad_rows import OnBadRow
from rlhf.data.reading.dataset_type import COLUMNS, DatasetType, missing_columns, type_of, untyped
from rlhf.data.reading.formats import converted
from rlhf.data.reading.near_names import nearest
from rlhf.data.reading.shared_prompt import with_prompt_apart
from rlhf.data.reading.turns import as_conversation, is_conversation
from rlhf.data.records import Row
from rlhf.errors import DataError

_TALKS = ("prompt", "completion", "chosen", "rejected", "messages")
"""Columns that may hold conversations."""
_OWN = frozenset(COLUMNS) - {DatasetType.TEXT, DatasetType.PROMPT}
"""A row of one of these types is what its columns say, even if other columns look like another format."""


@dataclass(frozen=True, slots=True)
class TypedRow:
    """A row in our columns."""

    row: Row
    kind: DatasetType | None
    """Its type, None when it is none of those that were wanted."""
    origin: str | None
    """The format from which it was converted."""

    @property
    def description(self) -> str:
        """Return what it holds, and what it was."""
        return f"{self.kind}, from {self.origin}" if self.origin else str(self.kind)


@dataclass(frozen=True, slots=True)
class TypedRows:
    """Rows of one type."""

    kind: DatasetType
    description: str
    """The type as it is printed, with the format from which the rows were converted."""
    rows: Iterator[Row]
    """As they were read; can be gone through once."""
    as_ours: Callable[[Row], Row]
    """Converts one of them into our columns, and refuses one of another type than the first."""


def detect_type(rows: Iterable[Row]) -> DatasetType:
    """Return the type of the first row, which every row must have.

    Raises:
        DataError: there is no row, a row has no known columns, or rows are of several types.
    """
    known = typed(rows, COLUMNS)
    for row in known.rows:
        known.as_ours(row)
    return known.kind


def typed(rows: Iterable[Row], wanted: Collection[DatasetType], on_bad_row: OnBadRow = "stop") -> TypedRows:
    """Tell the type of rows from the first one, or with "drop" from the first one that has a type.

    Args:
        rows: in any known format.
        wanted: the types that the reader of the rows can use.
        on_bad_row: whether a row of no wanted type is an error here, or passed over.

    Raises:
        DataError: there is no row, or no row is of a wanted type; with "stop" also where the first one is not.
    """
    source, seen = iter(rows), list[Row]()
    problem: DataError | None = None
    for row in source:
        seen.append(row)
        try:
            model = _model(row, wanted)
        except DataError as error:
            if on_bad_row == "stop":
                raise
            problem = problem or error
            continue
        assert model.kind is not None
        as_ours = partial(_alike, model, wanted)
        return TypedRows(model.kind, model.description + _unread(model), chain(seen, source), as_ours)
    raise problem or DataError("0 rows: an empty data set has no type")


def _model(row: Row, wanted: Collection[DatasetType]) -> TypedRow:
    model = in_our_columns(row, wanted)
    if model.kind is None:
        raise untyped(model.row, wanted)
    return model


def in_our_columns(row: Row, wanted: Collection[DatasetType]) -> TypedRow:
    """Convert one row into one of the wanted types, if it can be."""
    if row.fault is not None:
        raise row.fault
    talks = {name: as_conversation(row.values[name], row, name) for name in _TALKS if name in row.values}
    origin, known = None, replace(row, values={**row.values, **talks})
    if not row.is_mapped and not _is_ours(known, wanted):
        known, origin = converted(known)
        if origin is not None:
            return replace(in_our_columns(replace(known, is_mapped=True), wanted), origin=origin)
    if {"chosen", "rejected"} <= known.values.keys():
        known = with_prompt_apart(known)
    kind = type_of(known, wanted)
    if kind is None and is_conversation(known.values.get("messages")):
        known = _with_answer_apart(known)
        kind = type_of(known, wanted)
    return TypedRow(known, kind, origin)


def _is_ours(row: Row, wanted: Collection[DatasetType]) -> bool:
    """Tell whether a row is to be taken as it is."""
    kind = type_of(row, wanted)
    if kind is DatasetType.PREFERENCE:
        return "prompt" in row.values
    return kind in _OWN or (kind is DatasetType.PROMPT and DatasetType.PROMPT_COMPLETION not in wanted)


def _with_answer_apart(row: Row) -> Row:
    """Return a conversation as what precedes its last answer and that answer, for stages that need a prompt."""
    messages = row.values["messages"]
    others = {name: cell for name, cell in row.values.items() if name != "messages"}
    if messages[-1].get("role") != "assistant":
        return replace(row, values={**others, "prompt": messages})
    parts = {"prompt": messages[:-1], "completion": messages[-1:]} if len(messages) > 1 else {"messages": messages}
    return replace(row, values={**others, **parts})


def _alike(first: TypedRow, wanted: Collection[DatasetType], row: Row) -> Row:
    assert first.kind is not None
    one = in_our_columns(row, wanted)
    missing = [name for name in COLUMNS[first.kind] if name not in one.row.values]
    if missing:
        raise missing_columns(one.row, COLUMNS[first.kind], f" like {first.row.location}")
    if (one.kind, one.origin) != (first.kind, first.origin):
        raise DataError(
            f"{row.location}: holds {one.description}, but {first.row.location} holds {first.description}; found "
            f"columns {sorted(map(str, row.values))}"
        )
    return one.row


def _unread(first: TypedRow) -> str:
    """Say that a column looks like the prompt of preferences that have none."""
    if first.kind is not DatasetType.PREFERENCE or "prompt" in first.row.values:
        return ""
    like_a_prompt = nearest("prompt", [name for name, cell in first.row.values.items() if isinstance(cell, str)])
    if like_a_prompt is None or like_a_prompt in COLUMNS[first.kind]:
        return ""
    return f", no prompt: {like_a_prompt} is not read, column_map: {{prompt: {like_a_prompt}}} would make it the prompt"
