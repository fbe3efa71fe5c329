"""The columns of a source under our names: `column_map` renames them, `margin_from` takes a margin from two scores."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from rlhf.data.cells import number
from rlhf.data.reading.near_names import nearest, written
from rlhf.data.records import Row
from rlhf.errors import DataError

OUR_COLUMNS = ("prompt", "completion", "chosen", "rejected", "messages", "text")


def in_our_names(
    rows: Iterable[Row],
    *,
    column_map: Mapping[str, str],
    margin_from: Sequence[str] | None = None,
    keep_faulty: bool = False,
) -> Iterator[Row]:
    """Yield rows with their columns renamed, and with a margin.

    Args:
        rows: as the source has them.
        column_map: our column name -> the source's, as in {"prompt": "question"}.
        margin_from: the columns (as the source names them) of the chosen and the rejected answer's score; `margin` is
            the first less the second.
        keep_faulty: a row in which that fails is yielded with its fault, as are those that have one already.

    Raises:
        DataError: a row lacks a column that is named, or a score is no finite number.
    """
    for index, row in enumerate(rows):
        try:
            yield row if row.fault else _named(row, column_map, margin_from, is_first=index == 0)
        except DataError as error:
            if not keep_faulty:
                raise
            yield replace(row, fault=error)


def _named(row: Row, column_map: Mapping[str, str], margin_from: Sequence[str] | None, *, is_first: bool) -> Row:
    scored = row if margin_from is None else _with_margin(row, margin_from)
    return _renamed(scored, column_map, is_first=is_first) if column_map else scored


def _with_margin(row: Row, margin_from: Sequence[str]) -> Row:
    for name in margin_from:
        if name not in row.values:
            raise DataError(f"{row.location}: margin_from names {name!r}, found columns {sorted(map(str, row.values))}")
    chosen, rejected = (number(row, name) for name in margin_from)
    return Row({**row.values, "margin": chosen - rejected}, row.location)


def _renamed(row: Row, column_map: Mapping[str, str], *, is_first: bool) -> Row:
    for ours, theirs in column_map.items():
        if theirs not in row.values:
            # Later rows get no hint: a map that is right for them would be wrong for the first.
            hint = _corrected(column_map, row) if is_first else ""
            raise DataError(
                f"{row.location}: column_map names {theirs!r} for {ours!r}, found columns "
                f"{sorted(map(str, row.values))}{hint}"
            )
    others = {name: cell for name, cell in row.values.items() if name not in column_map.values()}
    renamed = {ours: row.values[theirs] for ours, theirs in column_map.items()}
    return Row({**others, **renamed}, row.location, is_mapped=any(name in OUR_COLUMNS for name in column_map))


def _corrected(column_map: Mapping[str, str], row: Row) -> str:
    """Return a hint with the whole map, in which the nearest names stand for those that no column has."""
    free = [name for name in row.values if name not in column_map.values()]
    corrected: dict[str, str] = {}
    for ours, theirs in column_map.items():
        guess = theirs if theirs in row.values else nearest(theirs, free)
        if guess is None or guess in corrected.values():
            return ""
        corrected[ours] = guess
    return written(corrected)
