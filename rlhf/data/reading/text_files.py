"""JSONL and CSV files, read line by line in bounded memory; every error names file and line; also writes JSONL."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from rlhf.data.bad_rows import BadRow
from rlhf.data.reading.compression import opened
from rlhf.data.reading.turns import is_conversation
from rlhf.data.records import Row
from rlhf.errors import DataError

MAX_LINE_BYTES = 10_000_000
"""A longer line is refused: it is not a row, and reading on could exhaust memory."""
_ONE_A_LINE = " - a JSONL file holds one object per line; name the file .json if it holds one array"
BYTE_ORDER_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"


def read_jsonl(path: Path, *, keep_faulty: bool = False) -> Iterator[Row]:
    """Yield one row for each line that is not blank; with `keep_faulty` also those that are no JSON object.

    Raises:
        DataError: a line is too long, not UTF-8, not JSON, or not an object.
    """
    for number, line in _lines(path):
        if not line.strip():
            continue
        location = f"{path}:{number}"
        yield read(partial(_row_in, line, location, is_first=number == 1), location, keep_faulty)


def read(make: Callable[[], Row], location: str, keep_faulty: bool) -> Row:
    """Return the row that `make` reads; one that cannot be read, with `keep_faulty`, as one that says why.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return make()
    except DataError as error:
        if not keep_faulty:
            raise
        return Row({}, location, fault=error)


def _row_in(line: str, location: str, *, is_first: bool) -> Row:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        hint = _ONE_A_LINE if is_first and line.strip() in ("[", "{") else ""
        fault = f"malformed JSON at column {error.colno}: {error.msg}{hint}"
        raise BadRow(location, fault, "malformed JSON") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
        raise DataError(f"{location}: JSON that cannot be read: {error}") from None
    return row_of(values, location, _ONE_A_LINE if is_first else "")


def row_of(values: object, location: str, fix: str = "") -> Row:
    """Return one JSON value as a row; a list of turns stands for a row that holds them.

    Raises:
        DataError: it is no object, said with `fix`.
    """
    if is_conversation(values):
        return Row({"conversations": values}, location)
    if not isinstance(values, dict):
        fault = f"expected a JSON object, found {type(values).__name__}"
        raise BadRow(location, fault + fix, fault)
    return Row(values, location)


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write one line for each row, and return the path as a configuration names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_csv(path: Path, *, keep_faulty: bool = False) -> Iterator[Row]:
    """Yield one row for each record below the header; every cell is text. `keep_faulty` is as for JSONL.

    Raises:
        DataError: a line is too long or not UTF-8, quotes are not closed, the header is empty or names a column twice,
            or the number of cells in a record differs from the header.
    """
    lines = _lines(path)
    # The csv module has a global limit; its default refuses cells that our limit for lines allows.
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader((line for _, line in lines), strict=True)
    start = 1
    header: list[str] | None = None
    try:
        for cells in reader:
            location, start = f"{path}:{start}", reader.line_num + 1
            if header is None:
                header = _checked_header(cells, location)
            elif cells:
                yield read(partial(_record, header, cells, location), location, keep_faulty)
    except csv.Error as error:
        raise DataError(f"{path}:{start}: malformed CSV: {error}") from None


def _record(header: list[str], cells: list[str], location: str) -> Row:
    if len(cells) != len(header):
        fault = f"expected {len(header)} cells, as in the header, found {len(cells)}"
        raise BadRow(location, fault, "another number of cells than in the header")
    return Row(dict(zip(header, cells, strict=True)), location)


def _checked_header(cells: list[str], location: str) -> list[str]:
    header = [cell.strip() for cell in cells]
    if not header or "" in header:
        raise DataError(f"{location}: the header has a column without a name; found {header}")
    if len(set(header)) < len(header):
        raise DataError(f"{location}: the header names a column twice; found {header}")
    return header


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of each line; drop a byte order mark at the start."""
    with opened(path) as file:
        yield from _decoded_lines(path, file)


def _decoded_lines(path: Path, file: BinaryIO) -> Iterator[tuple[int, str]]:
    number, offset = 0, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{path}:{number}: line of more than {MAX_LINE_BYTES} bytes - is each row on its own line?")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(f"{path}:{number}", offset + error.start, line[error.start]) from None
        offset += len(line)
        yield number, text.removeprefix(BYTE_ORDER_MARK) if number == 1 else text


def not_utf8(where: str, offset: int, byte: int) -> DataError:
    """Return the refusal of a byte that no text in UTF-8 has there."""
    return DataError(
        f"{where}: byte {offset} (0x{byte:02x}) is not UTF-8 - convert the file, for instance with iconv -f latin1 -t "
        "utf-8"
    )
