"""Where rows come from: JSON, CSV and parquet files, a directory saved by `datasets`, or a data set on the hub."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from rlhf.data.reading.column_names import in_our_names
from rlhf.data.reading.compression import PACKINGS, kind_of_file, packing_of
from rlhf.data.reading.json_array import read_json
from rlhf.data.reading.packages import needed
from rlhf.data.reading.text_files import read_csv, read_jsonl
from rlhf.data.records import Row
from rlhf.errors import DataError
from rlhf.reachable import unreachable

_READERS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*(/[A-Za-z0-9][\w.\-]*)?")
_SAVED_MARKS = ("dataset_info.json", "dataset_dict.json")


def read_rows(
    path: str | Path,
    *,
    split: str | None = None,
    column_map: Mapping[str, str] | None = None,
    margin_from: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Return `stream_rows` as a list."""
    return list(stream_rows(path, split=split, column_map=column_map, margin_from=margin_from, limit=limit))


def stream_rows(
    path: str | Path,
    *,
    split: str | None = None,
    column_map: Mapping[str, str] | None = None,
    margin_from: Sequence[str] | None = None,
    limit: int | None = None,
    keep_faulty: bool = False,
) -> Iterator[Row]:
    """Open a source, and yield its rows one by one, so that it may be larger than memory.

    Args:
        path: a file (.jsonl, .ndjson, .json with one array or one object per line, .csv, .parquet; all but the last may
            be compressed: .jsonl.gz, .bz2, .xz, .zst), a directory written by `Dataset.save_to_disk`, or the name of a
            data set on the hub.
        split: for a saved DatasetDict or the hub (there "train" when None); an error for files.
        column_map: our column name -> the source's, as in {"prompt": "question"}.
        margin_from: the columns of the chosen and the rejected answer's score, whose difference becomes `margin`.
        limit: read at most this many rows.
        keep_faulty: a row that cannot be read is yielded too, with its fault.

    Raises:
        DataError: nothing there, no rows, or a row that cannot be read; the message names file and line.
    """
    rows = _open(path, split, keep_faulty)
    named = in_our_names(rows, column_map=column_map or {}, margin_from=margin_from, keep_faulty=keep_faulty)
    return _some(islice(named, limit), path)


def _some(rows: Iterator[Row], path: str | Path) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: 0 rows")
    yield first
    yield from rows


def _open(path: str | Path, split: str | None, keep_faulty: bool) -> Iterable[Row]:
    local = Path(path)
    if local.is_dir():
        return _read_saved(local, split)
    kind = _READERS.get(kind_of_file(local))
    if local.exists() or kind is not None or not _HUB_NAME.fullmatch(str(path)):
        return _read_file(local, kind, split, keep_faulty)
    return _read_hub(str(path), split or "train")


def _read_file(path: Path, kind: str | None, split: str | None, keep_faulty: bool) -> Iterable[Row]:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if kind is None:
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}; expected one of {', '.join(_READERS)}, all but the last of "
            f"them also with {', '.join(PACKINGS)} behind"
        )
    if kind == "parquet" and packing_of(path):
        raise DataError(f"{path}: parquet files are compressed inside - unpack this one, and name it .parquet")
    if split is not None:
        raise DataError(f"{path}: a file has no splits, found split={split!r} - name the file of that split instead")
    if kind == "parquet":
        return _read_parquet(path)
    return {"jsonl": read_jsonl, "json": read_json, "csv": read_csv}[kind](path, keep_faulty=keep_faulty)


def _read_parquet(path: Path) -> Iterator[Row]:
    parquet, pa = needed("pyarrow.parquet", path), needed("pyarrow", path)
    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}:row {number}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as parquet: {_first_line(error)}") from None


def _read_saved(path: Path, split: str | None) -> Iterator[Row]:
    if not any((path / mark).is_file() for mark in _SAVED_MARKS):
        found = sorted(entry.name for entry in path.iterdir())[:5]
        raise DataError(
            f"{path}: 0 rows: a directory must have been written by Dataset.save_to_disk; found {found or 'nothing'} "
            "- name one file instead"
        )
    datasets = needed("datasets", path)
    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets passes on whatever its file readers raise
        raise DataError(f"{path}: cannot be read by datasets: {_first_line(error)}") from error
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise DataError(f"{path}: no split {split!r}; expected one of {', '.join(saved)}")
        return _located(saved[split], f"{path}[{split}]")
    if split is not None:
        raise DataError(f"{path}: this data set has no splits, found split={split!r}")
    return _located(saved, str(path))


def _read_hub(name: str, split: str) -> Iterator[Row]:
    datasets = needed("datasets", name)
    from datasets.load import CachedDatasetModuleFactory

    def is_cached() -> bool:
        try:
            CachedDatasetModuleFactory(name).get_module()
        except FileNotFoundError:
            return False
        return True

    why = unreachable(name, is_cached=is_cached, what="file or directory")
    if why is not None:
        raise DataError(f"{why} - give a local file or directory")
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # no network, no such name, no such split: datasets raises a dozen types
        raise DataError(
            f"{name}: no such local file, and the hub did not serve it (split {split!r}): {_first_line(error)} - give "
            "a local path if the hub cannot be reached (see also HF_HUB_OFFLINE)"
        ) from error
    return _located(loaded, f"{name}[{split}]")


def _located(values: Iterable[dict[str, object]], name: str) -> Iterator[Row]:
    return (Row(dict(cells), f"{name}:row {number}") for number, cells in enumerate(values, start=1))


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
