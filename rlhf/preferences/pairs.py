"""Verb: a policy answers every prompt several times, and its answers become pairs to label."""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from rlhf.config import SamplePairsConfig
from rlhf.data import cells
from rlhf.data.records import Prompt
from rlhf.errors import DataError
from rlhf.evaluation.generate import answered, prompts_of
from rlhf.evaluation.respond import Response, load_policy_here
from rlhf.fetch import resolve
from rlhf.preferences.answers import as_cell
from rlhf.preferences.files import checked_output, json_line
from rlhf.training.randomness import generator
from rlhf.training.storage.atomic import write_output

EMPTY, EQUAL, REPEATED, NOT_DRAWN = "dropped_empty", "dropped_equal", "dropped_repeated", "not_drawn"
"""What may become of a pair that is not kept."""
Place = tuple[int, int]


def sample_pairs(config: SamplePairsConfig) -> Path:
    """Answer every prompt `samples_per_prompt` times, as `rlhf generate` does, and write the pairs that differ.

    Returns:
        The JSONL file: prompt, first, second, `ended` and `tokens` of both, and the other columns of the prompt.

    Raises:
        RlhfError: bad config, data or model, or no two answers to any prompt differ.
    """
    output = checked_output(config.output, resolve(config.prompts.path) if config.prompts else None)
    policy = load_policy_here(config.model, config.precision, config.chat)
    prepared = prompts_of(config, policy)
    print(f"prompts [{prepared.description}]: {prepared.summary()}", flush=True)
    for number, prompt in enumerate(prepared.items, start=1):
        json_line(prompt.columns, f"prompt {number}")  # refused before it takes time
    num = config.samples_per_prompt
    _, responses = answered(policy, prepared.items, config)
    numbers, fates, rows = generator(config.seed, "sample-pairs"), Counter[str](), list[dict[str, Any]]()
    for place, prompt in enumerate(prepared.items):
        some = responses[place * num : (place + 1) * num]
        chosen, dropped = drawn_pairs([each.text for each in some], config.pairs_per_prompt, numbers)
        fates += dropped
        rows += [_row(prompt, some[first], some[second]) for first, second in chosen]
    drops = ", ".join(f"{name} {fates[name]}" for name in (EMPTY, EQUAL, REPEATED, NOT_DRAWN) if fates[name])
    if not rows:
        raise DataError(
            f"0 pairs left of {len(prepared.items)} prompts ({drops}) - raise decoding.temperature or "
            "samples_per_prompt, so that answers differ"
        )
    print(f"pairs: kept {len(rows)}{', ' if drops else ''}{drops}", flush=True)
    write_output(output, "".join(json_line(row, f"pair {number}") for number, row in enumerate(rows, start=1)))
    return output


def drawn_pairs(texts: Sequence[str], most: int | None, numbers: torch.Generator) -> tuple[list[Place], Counter[str]]:
    """Return the pairs of answers to one prompt that can be told apart, and what became of the others.

    Args:
        texts: the answers.
        most: so many are drawn without replacement; None takes all.
        numbers: draws them.

    Returns:
        Places of two answers, the earlier one first; and counts by fate: one of the answers is blank, both are equal,
        the same two texts are a pair already, or the pair was not drawn.
    """
    fates: Counter[str] = Counter()
    distinct: dict[frozenset[str], Place] = {}
    for first, second in combinations(range(len(texts)), 2):
        both = frozenset((texts[first], texts[second]))
        if any(cells.is_empty(text) for text in both):
            fates[EMPTY] += 1
        elif len(both) == 1:
            fates[EQUAL] += 1
        elif both in distinct:
            fates[REPEATED] += 1
        else:
            distinct[both] = (first, second)
    pairs = list(distinct.values())
    if most is None or len(pairs) <= most:
        return pairs, fates
    fates[NOT_DRAWN] = len(pairs) - most
    return [pairs[place] for place in sorted(torch.randperm(len(pairs), generator=numbers)[:most].tolist())], fates


def _row(prompt: Prompt, first: Response, second: Response) -> dict[str, Any]:
    ours = {
        "prompt": prompt.raw,
        "first": as_cell(prompt, first.text),
        "second": as_cell(prompt, second.text),
        "ended": [first.ended, second.ended],
        "tokens": [len(first.ids), len(second.ids)],
    }
    return {**ours, **{name: cell for name, cell in prompt.columns.items() if name not in ours}}
