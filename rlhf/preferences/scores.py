"""Verb: a judge's scores as one more column of a file of prompts and completions."""

import math
from pathlib import Path

import numpy as np

from rlhf.config import ScoreConfig
from rlhf.data.reading.column_names import in_our_names
from rlhf.data.reading.dataset_type import DatasetType, untyped
from rlhf.data.reading.rows import read_rows
from rlhf.data.reading.typed_rows import in_our_columns
from rlhf.data.records import Row
from rlhf.errors import DataError
from rlhf.fetch import resolve
from rlhf.preferences.answers import AnswerReader, Written, renamed
from rlhf.preferences.files import checked_output, json_line
from rlhf.preferences.judging import scoring_judge, tokenizer_for
from rlhf.training.storage.atomic import write_output

_WANTED = [DatasetType.PROMPT_COMPLETION]
_USED = ("completion", "response", "ended", "tokens", "messages")
"""Columns that rewards get as the answer itself."""


def add_scores(config: ScoreConfig) -> Path:
    """Score every answer of a file; rows, their order and their columns stay, and null stands for no score.

    Returns:
        The JSONL file.

    Raises:
        RlhfError: bad config or data, a file that has the column already, or a judge that failed.
    """
    source, section = resolve(config.data.path), config.data
    output = checked_output(config.output, source)
    rows = read_rows(source, split=section.split, limit=section.limit)
    for row in rows:
        json_line(row.values, row.location)  # refused before it takes time
        if config.column in row.values:
            raise DataError(f"{row.location}: has a column {config.column} already - set column to another name")
    tokenizer = tokenizer_for(config.judge, config)
    reader = AnswerReader(tokenizer)
    answers = [_answer(row, reader) for row in in_our_names(rows, column_map=section.column_map)]
    with scoring_judge(config.judge, config, tokenizer) as judge:
        scores = judge.scores(answers)
    given = scores[~np.isnan(scores)]
    mean = f", mean {given.mean():.4g}, standard deviation {given.std():.4g}" if len(given) else ""
    print(f"{config.column}: {len(given)} of {len(rows)} answers scored{mean}", flush=True)
    numbers = [None if math.isnan(score) else score for score in scores.tolist()]
    lines = (
        json_line({**row.values, config.column: number}, row.location)
        for row, number in zip(rows, numbers, strict=True)
    )
    write_output(output, "".join(lines))
    return output


def _answer(row: Row, reader: AnswerReader) -> Written:
    known = row
    if "completion" not in row.values and {"prompt", "response"} <= row.values.keys():
        known = renamed(row, {"response": "completion"})
    typed = in_our_columns(known, _WANTED)
    if typed.kind is None:
        raise untyped(typed.row, _WANTED)
    prompt = reader.prompt(typed.row, _USED)
    return reader.answer(typed.row, "completion", prompt, row.values.get("ended", True))
