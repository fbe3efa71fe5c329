"""Unequal rows packed against the same rows padded, and against full rows: loss and gradient of SFT, in one process.

Seconds are those of as many real tokens as the unequal rows have.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from transformers import PreTrainedModel

from materials import Texts
from options import PAIRS, Parser, add_dtype_and_seed, add_size, has_goals, parser, positive, settle
from rlhf.data.records import Example
from rlhf.fetch import resolve
from rlhf.functional.token_budget import token_budget_batches
from rlhf.models.passes.anatomy import blocks
from rlhf.models.passes.attention import use_short_row_attention
from rlhf.models.passes.packing import use_packing
from rlhf.models.pretrained.loading import load_causal_lm
from rlhf.sft import NextTokenObjective
from rlhf.training.precision import compute_dtype
from rows import Row, circumstances, collect, completed

SHORTEST = 16
LONGEST, ROWS = (256, 48), (32, 8)
"""Tokens of the longest row, and rows; in full, and with `--quick`."""
BUDGETS = (640, 2048)
"""`microbatch_tokens`: of the quickstart, and the default."""
GOAL = (0.8, 1.0)
"""Of the tokens per second of full rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Rows, and how they pass the model."""

    objective: NextTokenObjective
    packs: bool

    @property
    def tokens(self) -> int:
        """Real tokens of all rows."""
        return sum(self.objective.lengths())

    def seconds_per_token(self, budget: int) -> float:
        """Compute loss and gradient of all rows, at most `budget` tokens in a pass."""
        objective, model = self.objective, self.objective.lm
        use_packing(model, "cpu" if self.packs else "nowhere")
        model.zero_grad()
        before = time.perf_counter()
        for items in token_budget_batches(objective.lengths(), budget, packs=self.packs):
            objective.loss(items, self.tokens)[0].backward()
        return (time.perf_counter() - before) / self.tokens


def arguments() -> Parser:
    """Return the command line of this benchmark."""
    made = parser(__doc__)
    add_size(made, "--pairs", "how often the sides run in turn", PAIRS)
    add_size(made, "--longest", f"tokens of the longest row; the shortest has {SHORTEST}", LONGEST)
    add_size(made, "--rows", "unequal rows", ROWS)
    made.add_argument("--layers", type=positive, help="only so many blocks of the model, for a fast first look")
    add_dtype_and_seed(made, "compute type of all sides", "seed of the rows")
    return made


def sides(options: Any) -> dict[str, Side]:
    """Load the model, and return full rows, padded rows and packed rows."""
    directory = resolve(options.model)
    model = load_causal_lm(directory)
    if options.layers is not None:
        del blocks(model)[options.layers :]
        model.config.num_hidden_layers = options.layers
    use_short_row_attention(model)
    model.to(compute_dtype(options.dtype, torch.device("cpu")))  # type: ignore[arg-type]  # as in rlhf.stage.supervised
    draw = random.Random(options.seed)  # noqa: S311  # reproducible lengths, not a secret
    lengths = [draw.randint(SHORTEST, options.longest) for _ in range(options.rows)]
    unequal = _objective(model, directory, lengths, options.seed)
    full = _objective(model, directory, [options.longest] * -(-sum(lengths) // options.longest), options.seed)
    return {
        "full rows": Side(objective=full, packs=False),
        "padded": Side(objective=unequal, packs=False),
        "packed": Side(objective=unequal, packs=True),
    }


def _objective(model: PreTrainedModel, directory: str, lengths: Sequence[int], seed: int) -> NextTokenObjective:
    _, ids = Texts(directory, seed).of_lengths(lengths)
    examples = [Example(input_ids=tuple(row), loss_mask=(False, *[True] * (len(row) - 1))) for row in ids]
    return NextTokenObjective(model, examples, 0)


def comparisons(options: Any) -> Iterator[Row]:
    """Run the sides in turn after a warm-up of each, and yield the two rows of each budget."""
    found = sides(options)
    tokens = found["packed"].tokens
    for budget in BUDGETS:
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for turn in range(options.pairs + 1):
            for name, side in found.items():
                taken = side.seconds_per_token(budget) * tokens
                seconds[name] += [taken] if turn else []
        for other, goal in (("padded", None), ("full rows", GOAL if has_goals(options) else None)):
            name = f"{other} / unequal rows packed, {budget} tokens a pass"
            yield completed(_row(name, seconds[other], seconds["packed"], tokens), {"tokens": tokens}, None, goal)


def _row(name: str, theirs: Sequence[float], ours: Sequence[float], tokens: int) -> Row:
    row: Row = {"benchmark": "packed_rows", "name": name, **circumstances()}
    for side, found in (("theirs", theirs), ("ours", ours)):
        row[side] = {"seconds": median(found), "all_seconds": list(found), "tokens_per_second": tokens / median(found)}
    row["ratio"] = median(theirs) / median(ours)
    row["ratios"] = [a / b for a, b in zip(theirs, ours, strict=True)]
    return row


def main() -> None:
    """Measure, print the table, write the JSON."""
    made = arguments()
    options = made.parse_args()
    settle(made, options, pairs=PAIRS, longest=LONGEST, rows=ROWS)
    collect(comparisons(options), made, options.json)


if __name__ == "__main__":
    main()
