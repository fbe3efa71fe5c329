"""Supervised finetuning, ours against TRL's SFTTrainer: the same model and rows, real tokens counted (no padding)."""

import functools
import random
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from arithmetic import shape_of, training_seconds
from limits import budget_of, measure_limits
from materials import Texts
from options import PAIRS, Parser, add_dtype_and_seed, add_turns, has_goals, parser, positive, refuse_only, settle
from rlhf.data.reading.text_files import write_jsonl
from rlhf.fetch import resolve
from rlhf.training.precision import compute_dtype
from rows import Row, collect, comparison, completed
from sides import Side, in_turn

PINS = "trl-1.16.0"
BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Rows, and what the peer does with them."""

    name: str
    shortest: int
    longest: int
    batches: int
    packings: tuple[bool, ...]
    goal: tuple[float, float]

    def lengths(self, seed: int) -> list[int]:
        """Return the tokens of each row: uniform between shortest and longest, one row as long as possible."""
        draw = random.Random(seed)  # noqa: S311  # reproducible lengths, not a secret
        drawn = [draw.randint(self.shortest, self.longest) for _ in range(self.batches * BATCH_SIZE - 1)]
        return [self.longest, *drawn]


CASES = (
    Case(name="full rows", shortest=256, longest=256, batches=2, packings=(False,), goal=(2.3, 3)),
    Case(name="unequal rows", shortest=16, longest=256, batches=4, packings=(False, True), goal=(3, 4)),
)
QUICK_CASES = (Case(name="unequal rows", shortest=8, longest=64, batches=1, packings=(False,), goal=(3, 4)),)


def arguments() -> Parser:
    """Return the command line of this benchmark."""
    made = parser(__doc__)
    add_turns(made)
    made.add_argument("--passes", type=positive, default=1, help="timed passes over the rows, after one to warm up")
    add_dtype_and_seed(made, "the compute type of both sides", "seed of the rows")
    return made


def comparisons(cases: Sequence[Case], options: Any) -> Iterator[Row]:
    """Yield the rows of all cases."""
    with tempfile.TemporaryDirectory() as directory:
        for case in cases:
            yield from measured(case, Path(directory), options)


def measured(case: Case, directory: Path, options: Any) -> Iterator[Row]:
    """Run the peer, padded and packed, and ours in turn, and yield a row for each of the peer's two."""
    policy = resolve(options.model)
    texts, ids = Texts(policy, options.seed).of_lengths(case.lengths(options.seed))
    work = {
        "policy": policy,
        "texts": write_jsonl(directory / "rows.jsonl", [{"text": text} for text in texts]),
        "rows": ids,
        "batch_size": BATCH_SIZE,
        "passes": 1 + options.passes,
        "seed": options.seed,
    }
    ours = _our_side(work, options)
    theirs = {packed: _their_side(packed, work, options) for packed in _packings(case, options)}
    found = in_turn([*theirs.values(), ours], options.pairs, options.timeout)
    tokens = sum(len(row) for row in ids)
    limits = measure_limits(_dtype(options.dtype), budget_of(options))
    least = training_seconds(shape_of(policy), limits, tokens)
    for packed, side in theirs.items():
        row = comparison("sft_vs_trl", _name(case, packed, options), found[side.name], found["ours"])
        yield _completed(row, case, tokens, least, options)


def _our_side(work: dict[str, Any], options: Any) -> Side:
    given = {"dtype": options.dtype, "settings": options.set}
    return Side(name="ours", worker="workers/our_sft.py", work={**work, **given})


def _their_side(packed: bool, work: dict[str, Any], options: Any) -> Side:
    given = {"dtype": _name_of(options), "packing": packed}
    return Side(name=_peer(packed, options), worker="workers/trl_sft.py", pins=PINS, work={**work, **given})


def _completed(row: Row, case: Case, tokens: int, least: float, options: Any) -> Row:
    work = {"real_tokens": tokens, "batch_size": BATCH_SIZE}
    sides = {side: row[side] for side in ("theirs", "ours") if side in row}
    speeds: Row = {side: {**found, "tokens_per_second": tokens / found["seconds"]} for side, found in sides.items()}
    return completed({**row, **speeds}, work, least, case.goal if has_goals(options) else None)


def _packings(case: Case, options: Any) -> list[bool]:
    return [packed for packed in case.packings if options.only in _name(case, packed, options)]


@functools.cache
def _dtype(choice: Literal["auto", "float32", "bfloat16"]) -> torch.dtype:
    """Return the type in which both sides compute; with `auto` the machine's faster one."""
    return compute_dtype(choice, torch.device("cpu"))


def _name_of(options: Any) -> str:
    return str(_dtype(options.dtype)).removeprefix("torch.")


def _peer(packed: bool, options: Any) -> str:
    return f"TRL 1.16.0 {_name_of(options)}, {'packed' if packed else 'padded'}"


def _name(case: Case, packed: bool, options: Any) -> str:
    return f"{case.name}: {_peer(packed, options)} / ours"


def main() -> None:
    """Measure, print the table, write the JSON."""
    made = arguments()
    options = made.parse_args()
    cases = [case for case in (QUICK_CASES if options.quick else CASES) if _packings(case, options)]
    if not cases:
        refuse_only(made, options)
    settle(made, options, pairs=PAIRS)
    collect(comparisons(cases, options), made, options.json)


if __name__ == "__main__":
    main()
