"""JSONL files that hold the rows of another file and more: every column is kept, and the input is never overwritten."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError, DataError


def checked_output(output: str, source: str | None) -> Path:
    """Return the path of an output, which must be another file than the one that is read.

    Args:
        output: the file to write.
        source: the file that is read, or the name of a data set; None for standard input.

    Raises:
        ConfigError: they are the same file, by whatever names, or the output is a directory.
    """
    path = Path(output)
    if path.is_dir():
        raise ConfigError(f"output: {path} is a directory - name a file in it: output={path}/pairs.jsonl")
    if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
        raise ConfigError(f"output: {path} is the file that is read, {source} - name another one")
    return path


def json_line(values: Mapping[str, Any], location: str) -> str:
    """Return a row as a line of JSON; text that UTF-8 cannot hold is spelled out.

    Raises:
        DataError: a cell, such as a date in a parquet file, is nothing that JSON knows.
    """
    for name, cell in values.items():
        try:
            json.dumps(cell)
        except (TypeError, ValueError):
            raise DataError(
                f"{location}: column {name} holds a {type(cell).__name__}, which a JSONL file cannot keep - convert it "
                "to text, or leave the column out"
            ) from None
    line = json.dumps(values, ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell
        line = json.dumps(values)
    return line + "\n"
