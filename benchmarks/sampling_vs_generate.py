"""Sampling, ours against transformers' `generate`: one process, one model, the same prompts and number of tokens.

Without EOS every row gets all its tokens. With early EOS both sides stop at the same set of token ids, chosen so that
about a third of the rows end early.
"""

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from arithmetic import sampling_seconds, shape_of
from limits import budget_of, measure_limits
from materials import Texts
from options import PAIRS, Parser, add_dtype_and_seed, add_size, has_goals, parser, positive, settle
from rlhf.batches import PromptBatch, Samples
from rlhf.fetch import resolve
from rlhf.models.pretrained.loading import frozen_in, load_causal_lm
from rlhf.sampling.sampler import sample
from rlhf.training.precision import compute_dtype
from rows import Row, circumstances, collect, completed
from stopwatch import peak_bytes, versions

EARLY_SHARE = 1 / 3
"""Share of rows that end before their last token, with early EOS."""
ROWS = (16, 64, 128)
GOALS: dict[int, tuple[float, float]] = {16: (2, 3.5), 64: (2, 3.5)}
PROMPT_TOKENS, NEW_TOKENS = 32, (64, 24)
"""Tokens per row; new ones in full, and with `--quick`."""
PAD_ID = 0
CPU = torch.device("cpu")


def arguments() -> Parser:
    """Return the command line of this benchmark."""
    made = parser(__doc__)
    made.add_argument("--rows", type=positive, action="append", help=f"rows of a batch, may be repeated; else {ROWS}")
    add_size(made, "--pairs", "how often the sides run in turn", PAIRS)
    made.add_argument("--prompt-tokens", type=positive, default=PROMPT_TOKENS, help="tokens of each prompt")
    add_size(made, "--new-tokens", "tokens sampled at most", NEW_TOKENS)
    add_dtype_and_seed(made, "compute type of both sides", "seed of prompts and sampling")
    return made


def load(directory: str, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model that both sides use; only token ids that a caller names end a response."""
    model = frozen_in(load_causal_lm(directory), dtype)
    assert model.generation_config is not None
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = PAD_ID
    return model


def ours(model: PreTrainedModel, prompt_ids: Tensor, new_tokens: int, stops: Sequence[int], seed: int) -> Samples:
    """Sample with `rlhf`."""
    return sample(
        model,
        PromptBatch(prompt_ids=prompt_ids, prompt_mask=torch.ones_like(prompt_ids, dtype=torch.bool)),
        max_new_tokens=new_tokens,
        temperature=1.0,
        eos_ids=stops,
        generator=torch.Generator().manual_seed(seed),
    )


@torch.no_grad()
def theirs(model: PreTrainedModel, prompt_ids: Tensor, new_tokens: int, stops: Sequence[int], seed: int) -> Tensor:
    """Sample with `generate` and return the responses [B, T], padded after a stop."""
    torch.manual_seed(seed)
    written: Tensor = model.generate(  # type: ignore[operator]  # transformers wraps the method out of its type
        input_ids=prompt_ids,
        attention_mask=torch.ones_like(prompt_ids),
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new_tokens,
        eos_token_id=list(stops) or None,
        pad_token_id=PAD_ID,
    )
    return written[:, prompt_ids.shape[1] :]


def num_tokens(response_ids: Tensor, stops: Sequence[int]) -> int:
    """Return how many tokens of [B, T] a user gets: those up to and including the first stop of each row."""
    is_stop = torch.isin(response_ids, torch.tensor(list(stops), dtype=torch.int64))
    first = torch.where(is_stop.any(1), is_stop.int().argmax(1), response_ids.shape[1] - 1)
    return int((first + 1).sum())


def early_stops(model: PreTrainedModel, prompt_ids: Tensor, new_tokens: int, seed: int) -> list[int]:
    """Return token ids at which about `EARLY_SHARE` of the rows, sampled once, would end early."""
    samples = ours(model, prompt_ids, new_tokens, (), seed)
    return chosen_stops(samples.response_ids[:, :-1], seed)


def chosen_stops(response_ids: Tensor, seed: int) -> list[int]:
    """Pick tokens of [B, T] in random order until `EARLY_SHARE` of the rows hold one."""
    order = response_ids.unique().tolist()
    random.Random(seed).shuffle(order)  # noqa: S311  # reproducible, not a secret
    stops: list[int] = []
    held = torch.zeros(len(response_ids), dtype=torch.bool)
    for token in order:
        if float(held.float().mean()) >= EARLY_SHARE:
            break
        with_it = held | (response_ids == token).any(1)
        # A token that many rows hold would end far more rows than asked for.
        if float(with_it.float().mean()) <= 1.2 * EARLY_SHARE or len(response_ids) < 8:
            held, stops = with_it, [*stops, token]
    return stops


def measured(
    model: PreTrainedModel, prompt_ids: Tensor, stops: Sequence[int], options: Any
) -> dict[str, dict[str, list[float]]]:
    """Run both sides in turn after a warm-up of each, and return times and response tokens by side."""
    sides: dict[str, Callable[..., Tensor | Samples]] = {"theirs": theirs, "ours": ours}
    found: dict[str, dict[str, list[float]]] = {name: {"seconds": [], "tokens": []} for name in sides}
    for turn in range(options.pairs + 1):
        for name, side in sides.items():
            before = time.perf_counter()
            result = side(model, prompt_ids, options.new_tokens, stops, options.seed + turn)
            seconds = time.perf_counter() - before
            ids = result.response_ids if isinstance(result, Samples) else result
            if turn:
                found[name]["seconds"].append(seconds)
                found[name]["tokens"].append(num_tokens(ids, stops))
    return found


def comparisons(options: Any) -> Iterator[Row]:
    """Load the model and yield a row for each number of rows, without and with early EOS."""
    directory, dtype = resolve(options.model), compute_dtype(options.dtype, CPU)
    model, texts = load(directory, dtype), Texts(directory, options.seed)
    shape, limits = shape_of(directory), measure_limits(dtype, budget_of(options))
    for num_rows in options.rows or ROWS:
        prompt_ids = torch.tensor(texts.of_lengths([options.prompt_tokens] * num_rows)[1])
        sizes = {"rows": num_rows, "prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens}
        for early in (False, True):
            stops = early_stops(model, prompt_ids, options.new_tokens, options.seed) if early else []
            name = f"{num_rows} rows, {'early EOS' if early else 'no EOS'}, {str(dtype).removeprefix('torch.')}"
            print(f"{name} ...", file=sys.stderr, flush=True)
            row = row_of(measured(model, prompt_ids, stops, options), name, num_rows)
            # With early EOS the least work depends on where rows end.
            least = None if early else sampling_seconds(shape, limits, **sizes, bytes_per_weight=dtype.itemsize)
            yield completed(row, {**sizes, "num_stop_ids": len(stops)}, least, _goal(num_rows, dtype, options))


def _goal(num_rows: int, dtype: torch.dtype, options: Any) -> tuple[float, float] | None:
    has_full_size = (options.prompt_tokens, options.new_tokens) == (PROMPT_TOKENS, NEW_TOKENS[0])
    return GOALS.get(num_rows) if dtype == torch.bfloat16 and has_full_size and has_goals(options) else None


def row_of(found: dict[str, dict[str, list[float]]], name: str, num_rows: int) -> Row:
    """Return the row: `ratio` is the median time of `generate` divided by ours."""
    row: Row = {"benchmark": "sampling_vs_generate", "name": name, **circumstances(), "versions": versions()}
    for side, figures in found.items():
        seconds, tokens = median(figures["seconds"]), sum(figures["tokens"])
        speed = tokens / sum(figures["seconds"])
        row[side] = {"seconds": seconds, "all_seconds": figures["seconds"], "tokens_per_second": speed}
        row[side]["tokens_per_row"] = tokens / len(figures["tokens"]) / num_rows
    row["ratio"] = row["theirs"]["seconds"] / row["ours"]["seconds"]
    row["ratios"] = [a / b for a, b in zip(found["theirs"]["seconds"], found["ours"]["seconds"], strict=True)]
    row["peak_gb_of_both"] = peak_bytes() / 1e9
    return row


def main() -> None:
    """Measure, print the table, write the JSON."""
    made = arguments()
    options = made.parse_args()
    settle(made, options, pairs=PAIRS, new_tokens=NEW_TOKENS)
    if options.quick:
        options.rows = options.rows or [16]
    collect(comparisons(options), made, options.json)


if __name__ == "__main__":
    main()
