"""Files as they are or compressed: .gz, .bz2, .xz and .zst, opened so that they are read piece by piece."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from rlhf.data.reading.packages import needed
from rlhf.errors import DataError


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, unpacked if its name says that it is compressed.

    Raises:
        DataError: it cannot be opened, or, while it is read, it turns out to be damaged or not compressed at all.
    """
    packing = packing_of(path)
    try:
        with _OPENERS[packing](path) as file:
            yield file
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        what = getattr(error, "strerror", None) or str(error)
        fix = f" - the name says {packing}: is the file whole, and compressed so?" if packing else ""
        raise DataError(f"{path}: cannot be read: {what}{fix}") from None


def packing_of(path: Path) -> str:
    """Return the suffix of a compressed file, "" for any other."""
    suffix = path.suffix.lower()
    return suffix if suffix in _OPENERS else ""


def kind_of_file(path: Path) -> str:
    """Return the suffix that says what a file holds: ".jsonl" for a.jsonl and for a.jsonl.gz."""
    return (path.with_suffix("") if packing_of(path) else path).suffix.lower()


def _open_zstd(path: Path) -> BinaryIO:
    pa = needed("pyarrow", path)
    if not pa.Codec.is_available("zstd"):
        raise DataError(f"{path}: this build of pyarrow cannot read zstd - unpack the file first, with zstd -d")
    return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))


def _open_plain(path: Path) -> BinaryIO:
    return path.open("rb")


_Opener = Callable[[Path], BinaryIO]
_OPENERS: dict[str, _Opener] = {
    "": _open_plain,
    ".gz": cast(_Opener, gzip.open),
    ".bz2": cast(_Opener, bz2.open),
    ".xz": cast(_Opener, lzma.open),
    ".zst": _open_zstd,
}

PACKINGS = tuple(packing for packing in _OPENERS if packing)
"""Suffixes of compressed files."""
