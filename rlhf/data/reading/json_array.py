"""JSON files that hold one array of rows, read element by element: one row is in memory, however long the array."""

import codecs
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from rlhf.data.reading.compression import opened
from rlhf.data.reading.text_files import BYTE_ORDER_MARK, MAX_LINE_BYTES, not_utf8, read, read_jsonl, row_of
from rlhf.data.records import Row
from rlhf.errors import DataError

CHUNK_BYTES = 1 << 20
_ALMOST_AT_THE_END = 16
"""Characters: an element that breaks off in the middle of a number or an escape is faulted a little before the end."""


def read_json(path: Path, *, keep_faulty: bool = False) -> Iterator[Row]:
    """Yield the rows of a .json file: the elements of one array, or one object a line.

    With `keep_faulty` also elements and lines that are no object; behind malformed JSON the array cannot be read on.

    Raises:
        DataError: a row is too long, not UTF-8, not JSON, or not an object; the array does not end.
    """
    if not _begins_with_bracket(path):
        yield from read_jsonl(path, keep_faulty=keep_faulty)
        return
    with opened(path) as file:
        array = _Array(path, file)
        for number, element in enumerate(array.elements(), start=1):
            location = f"{path}:row {number}"
            yield read(partial(row_of, element, location), location, keep_faulty)


def _begins_with_bracket(path: Path) -> bool:
    with opened(path) as file:
        return file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


class _Array:
    """A JSON array that is gone through once."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._num_bytes = 0
        self._text = ""
        """What was read and is still needed."""
        self._at = 0
        """The next character in it."""
        self._line, self._column = 1, 1
        """Where the text begins in the file."""

    def elements(self) -> Iterator[object]:
        """Yield one element after the other."""
        self._next_mark()
        self._at += 1  # the bracket
        number, mark = 0, self._next_mark()
        while mark != "]":
            yield self._element()
            number, mark = number + 1, self._next_mark()
            if mark == ",":
                self._at += 1
                self._next_mark()
            elif mark != "]":
                raise self._refusal(self._at, f"expected , or ] after row {number}, found {mark!r}", ends=not mark)
        self._at += 1
        if self._next_mark():
            raise self._refusal(self._at, "something follows the end of the array - a .json file holds one array")

    def _next_mark(self) -> str:
        """Pass over white space and return the character behind it, "" at the end of the file."""
        while True:
            rest = self._text[self._at : self._at + 1]
            if rest and not (rest.isspace() or rest == BYTE_ORDER_MARK):
                return rest
            if rest:
                self._at += 1
            elif not self._read_on():
                return ""

    def _element(self) -> object:
        decoder = json.JSONDecoder()
        while True:
            try:
                value, self._at = decoder.raw_decode(self._text, self._at)
                return value
            except json.JSONDecodeError as error:
                refusal = self._refusal(error.pos, f"malformed JSON: {error.msg}")
                if not self._may_go_on(error) or not self._read_on():
                    raise refusal from None
            except (ValueError, RecursionError) as error:  # a number of thousands of digits, or nesting without end
                raise self._refusal(self._at, f"JSON that cannot be read: {error}") from None

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Tell whether an element may only have broken off where the text read so far ends."""
        if len(self._text) - self._at > MAX_LINE_BYTES:
            raise self._refusal(self._at, f"a row of more than {MAX_LINE_BYTES} bytes - is the array closed?")
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _ALMOST_AT_THE_END

    def _read_on(self) -> bool:
        """Forget what is done with and read another piece; tell whether there was one."""
        done, self._text = self._text[: self._at], self._text[self._at :]
        self._line, self._column = self._place(done)
        self._at = 0
        piece = self._file.read(CHUNK_BYTES)
        self._num_bytes += len(piece)
        try:
            self._text += self._decode(piece, not piece)
        except UnicodeDecodeError as error:
            offset = self._num_bytes - len(error.object) + error.start
            raise not_utf8(str(self._path), offset, error.object[error.start]) from None
        return bool(piece)

    def _place(self, before: str) -> tuple[int, int]:
        """Return line and column of what follows `before`, with which the text begins."""
        column = len(before) - before.rfind("\n") if "\n" in before else self._column + len(before)
        return self._line + before.count("\n"), column

    def _refusal(self, position: int, what: str, *, ends: bool = False) -> DataError:
        if ends:
            return DataError(f"{self._path}: the array is not closed - is the file whole?")
        line, column = self._place(self._text[:position])
        return DataError(f"{self._path}:{line}: {what} at column {column}")
