"""Rows passed from Python: a list of mappings, a data set, or the name of one."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rlhf.config.shared import FittingSection
from rlhf.data.reading.column_names import in_our_names
from rlhf.data.reading.rows import stream_rows
from rlhf.data.records import Prompt, Row
from rlhf.errors import DataError
from rlhf.fetch import resolve
from rlhf.ppo.run.prompt_source import GivenPrompt, rows_of, several
from rlhf.stage.supervised import Source

GivenRows = Iterable[Mapping[str, Any]] | str | Path
"""A list of mappings, a `Dataset` or `IterableDataset`; or a path, hub name or `fetch:NAME/file`, as in a YAML file."""


def given_source(given: GivenRows, name: str, fitting: FittingSection) -> Source:
    """Return the rows, and what to do with those that do not fit; `name` is the argument's name.

    Raises:
        DataError: nothing can be read, there are no rows, or a row is not a mapping; says which.
    """
    if isinstance(given, str | Path):
        return Source(str(given), stream_rows(resolve(str(given)), **fitting.naming), fitting)
    rows = in_our_names(_rows(_several(given, name), name), **fitting.naming)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{name}: 0 rows")
    source = Source(name, chain([first], rows), fitting)
    return source.in_memory() if isinstance(given, Sequence) else source


_NAME = re.compile(r"\S+/[\w.\-]+|\S+\.(jsonl?|ndjson|csv|parquet)(\.(gz|bz2|xz|zst))?")
"""`owner/name`, a path, or a file whose extension gives its format."""

GivenPrompts = Iterable[GivenPrompt] | str | Path
"""Texts, lists of messages, or mappings with `prompt`; or the name of a file or data set."""


def given_prompts(given: GivenPrompts, fitting: FittingSection) -> Source:
    """Return the prompts, and what to do with those that do not fit.

    Raises:
        DataError: nothing can be read, there are no prompts, or one of them is not a prompt; says which.
    """
    if isinstance(given, Path) or (isinstance(given, str) and _is_name(given)):
        return given_source(given, "prompts", fitting)
    rows = list(rows_of(given, fitting))  # refuses a string that is no name: a single prompt, not put in a list
    if not rows:
        raise DataError("prompts: 0 rows")
    return Source("prompts", rows, fitting)


def made_ready(
    prompts: Sequence[GivenPrompt] | Sequence[Prompt], encode: Callable[[Sequence[Any]], list[Prompt]], limit: int
) -> list[Prompt]:
    """Return prompts for a rollout: those that are prepared as they are, the others tokenized by `encode`.

    Raises:
        DataError: one has more than `limit` tokens, so that `encode` left it out.
    """
    given = list(several(prompts))
    raw = [prompt for prompt in given if not isinstance(prompt, Prompt)]
    encoded = encode(raw) if raw or not given else []
    if len(encoded) < len(raw):
        raise DataError(f"rollout: {len(raw) - len(encoded)} of {len(given)} prompts are longer than {limit}")
    fresh = iter(encoded)
    return [prompt if isinstance(prompt, Prompt) else next(fresh) for prompt in given]


def digest_of_items(items: Sequence[object]) -> str:
    """Return a sha256 over records of token ids."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(repr(item).encode())
    return digest.hexdigest()


def _is_name(text: str) -> bool:
    """Whether a string is the name of a file or data set rather than a prompt."""
    return text.startswith("fetch:") or Path(text).exists() or bool(_NAME.fullmatch(text))


def _several(given: object, name: str) -> Iterable[object]:
    """Return rows that can be iterated over more than once."""
    if isinstance(given, Iterable) and not isinstance(given, Iterator | str):
        if not isinstance(given, Mapping) and not hasattr(given, "iloc"):
            return given
        fix = "give one of its splits, a list of rows, or the rows of a table (to_dict('records'))"
    else:
        fix = "each epoch shuffles all rows: make a list of them"
    raise DataError(f"{name}: expected a list of mappings, a data set or a name, found {type(given).__name__} - {fix}")


def _rows(given: Iterable[object], name: str) -> Iterator[Row]:
    for number, row in enumerate(given, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f'{name}:row {number}: expected a mapping such as {{"prompt": ..., "completion": ...}}, found '
                f"{type(row).__name__}"
            )
        yield Row(dict(row), f"{name}:row {number}")
