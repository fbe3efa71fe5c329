"""Verb: a judge says which answer of each pair is better, and the pairs become preferences for a reward model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from rlhf.config import LabelConfig
from rlhf.config.judges import OpenAIJudgeSection
from rlhf.data import cells
from rlhf.data.bad_rows import BadRow
from rlhf.data.reading.dataset_type import DatasetType, missing_columns
from rlhf.data.reading.rows import read_rows
from rlhf.data.reading.typed_rows import in_our_columns
from rlhf.data.records import Message, Row
from rlhf.errors import DataError
from rlhf.evaluation.judges.pairwise import TIE
from rlhf.evaluation.statistics.matrix import preferences_by_score
from rlhf.fetch import resolve
from rlhf.preferences.answers import AnswerReader, Written, as_cell, renamed, without
from rlhf.preferences.files import checked_output, json_line
from rlhf.preferences.judging import preferences_of_pairs, scoring_judge, tokenizer_for
from rlhf.training.randomness import generator
from rlhf.training.storage.atomic import write_output

Floats = NDArray[np.float64]

SCORES = ("chosen_score", "rejected_score")
"""The columns of the scores, for `data.margin_from` of a reward model."""
_PAIR = ("first", "second")
_USED = (*_PAIR, "ended", "tokens", "chosen", "rejected", "margin", *SCORES)
"""Columns of a pair that its label replaces; a margin of older labels would be wrong for the new ones."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Two answers to a prompt, of which one may be better."""

    row: Row
    first: Written
    second: Written

    @property
    def fault(self) -> str | None:
        """Why no judge is asked: a reward model could not read the pair."""
        texts = [self.first.response.text, self.second.response.text]
        if any(cells.is_empty(text) for text in texts):
            return "dropped_empty"
        return "dropped_equal" if texts[0] == texts[1] else None

    def cell(self, name: str) -> str | list[Message]:
        """Return one of the answers as preferences hold it; messages stay as they are in the row."""
        given = self.row.values[name]
        return given if isinstance(given, list) else as_cell(self.first.prompt, given)


@dataclass(frozen=True, slots=True)
class Labels:
    """What a judge said about N pairs."""

    preferences: Floats
    """[N] 1: the first wins, 0: the second, 1/2: a tie, NaN: no score."""
    scores: Floats | None
    """[N, 2] of first and second; None of a judge that gives none."""
    num_turned: int = 0
    """Labels that the noise turned against the scores."""


def label_pairs(config: LabelConfig) -> Path:
    """Let a judge label every pair; ties are dropped and counted.

    Returns:
        The JSONL file: prompt, chosen, rejected, their scores if the judge gives any, and the other columns.

    Raises:
        RlhfError: bad config or data, a judge that failed, or no pair is left.
    """
    source = resolve(config.pairs.path)
    output = checked_output(config.output, source)
    section = config.pairs
    rows = read_rows(source, split=section.split, column_map=section.column_map, limit=section.limit)
    for row in rows:
        json_line(row.values, row.location)  # refused before it takes time
    tokenizer = tokenizer_for(config.judge, config)
    reader = AnswerReader(tokenizer)
    read = [_candidates(row, reader) for row in rows]
    pairs = [pair for pair in read if pair.fault is None]
    labels = _labels(config, pairs, tokenizer)
    fates = Counter(pair.fault for pair in read if pair.fault is not None)
    fates["ties"] = int((labels.preferences == TIE).sum())
    fates["unscored"] = int(np.isnan(labels.preferences).sum())
    decided = [place for place, said in enumerate(labels.preferences) if said in (0.0, 1.0)]
    drops = "".join(f", {name} {count}" for name, count in fates.items() if count)
    if not decided:
        raise DataError(
            f"{section.path}: 0 preferences left of {len(read)} pairs{drops} - another judge may tell them apart, or "
            "sample answers that differ more"
        )
    noise = f"; noise turned {labels.num_turned} of them" if config.temperature > 0 else ""
    print(f"preferences: read {len(read)}, kept {len(decided)}{drops}{noise}", flush=True)
    write_output(output, "".join(_line(pairs[place], labels, place) for place in decided))
    return output


def noisy_preferences(scores: Floats, temperature: float, uniform: Floats) -> Floats:
    """Return preferences as a Bradley-Terry model draws them from scores.

    P(first wins) = sigmoid((score of the first - score of the second) / temperature)

    Source: Bradley and Terry 1952; Christiano et al. 2017, arXiv:1706.03741, equation 1. Equal scores are a tie, which
    the model would toss a coin for.

    Args:
        scores: [N, 2] of first and second; NaN for an answer without a score.
        temperature: in units of the score; 0 prefers the higher score.
        uniform: [N] numbers in [0, 1).

    Returns:
        [N] 1, 0, 1/2 for a tie, NaN where a score is missing.
    """
    first, second = scores.T
    plain = np.where(np.isnan(first + second), np.nan, preferences_by_score(first, second))
    if temperature == 0:
        return plain
    # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow.
    chance = 0.5 * (1 + np.tanh((first - second) / temperature / 2))
    return np.where(np.isnan(plain) | (plain == TIE), plain, uniform < chance)


def _labels(config: LabelConfig, pairs: Sequence[Candidates], tokenizer: PreTrainedTokenizerBase | None) -> Labels:
    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    if isinstance(config.judge, OpenAIJudgeSection):
        return Labels(preferences_of_pairs(config.judge, first, second), None)
    with scoring_judge(config.judge, config, tokenizer) as judge:
        scores = judge.distinct_scores([*first, *second]).reshape(2, len(pairs)).T
    numbers = torch.rand(len(pairs), generator=generator(config.seed, "label"), dtype=torch.float64).numpy()
    drawn = noisy_preferences(scores, config.temperature, numbers)
    plain = noisy_preferences(scores, 0.0, numbers)
    return Labels(drawn, scores, int(((drawn != plain) & ~np.isnan(drawn)).sum()))


def _candidates(row: Row, reader: AnswerReader) -> Candidates:
    pair = row
    if not row.values.keys() >= {"prompt", *_PAIR}:
        typed = in_our_columns(row, [DatasetType.PREFERENCE])
        if typed.kind is None or "prompt" not in typed.row.values:
            raise missing_columns(row, ("prompt", *_PAIR), " (or prompt, chosen and rejected, to label them anew)")
        pair = renamed(Row(without(typed.row, _PAIR), row.location), {"chosen": "first", "rejected": "second"})
    ended = pair.values.get("ended", [True, True])
    if not isinstance(ended, list) or len(ended) != len(_PAIR):
        raise BadRow(row.location, f"ended must be [true or false, true or false], found {ended!r}")
    prompt = reader.prompt(pair, _USED)
    first, second = (reader.answer(pair, name, prompt, each) for name, each in zip(_PAIR, ended, strict=True))
    return Candidates(pair, first, second)


def _line(pair: Candidates, labels: Labels, place: int) -> str:
    order = [0, 1] if labels.preferences[place] == 1 else [1, 0]
    chosen, rejected = (pair.cell(_PAIR[which]) for which in order)
    scores: Mapping[str, float] = {}
    if labels.scores is not None:
        scores = dict(zip(SCORES, labels.scores[place, order].tolist(), strict=True))
    row: dict[str, Any] = {"prompt": pair.first.prompt.raw, "chosen": chosen, "rejected": rejected, **scores}
    return json_line({**row, **without(pair.row, ("prompt", *_USED))}, pair.row.location)
