"""One PPO update, ours against TRL: the same model, prompts, lengths, epochs, minibatches and number of tokens."""

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from arithmetic import shape_of, update_seconds
from limits import budget_of, measure_limits
from materials import Texts, make_reward_model
from options import (
    PAIRS,
    Parser,
    add_dtype_and_seed,
    add_size,
    add_turns,
    has_goals,
    parser,
    positive,
    refuse_only,
    settle,
)
from rlhf.data.reading.text_files import write_jsonl
from rlhf.fetch import resolve
from rlhf.training.precision import compute_dtype
from rows import Row, collect, comparison, completed
from sides import Side, in_turn


@dataclass(frozen=True, slots=True)
class Peer:
    """A release of TRL at one precision, and the goals of our two critics against it: (at least, aim)."""

    name: str
    worker: str
    pins: str
    dtype: str
    goals: dict[str, tuple[float, float]]
    mixed: bool = False

    def side(self, work: dict[str, Any]) -> Side:
        """Return what its process does."""
        # `bf16=True` has no effect in this trainer; accelerate's variable does.
        variables = {"ACCELERATE_MIXED_PRECISION": "bf16" if self.mixed else "no"}
        own = {**work, "dtype": self.dtype}
        return Side(name=self.name, worker=self.worker, pins=self.pins, variables=variables, work=own)


NEW, OLD = ("workers/trl_ppo.py", "trl-1.12.0"), ("workers/trl_trunk_ppo.py", "trl-0.11.4")
PEERS = (
    Peer("TRL 1.12.0 mixed", *NEW, "float32", {"shared": (4, 5), "separate": (2.5, 3.3)}, mixed=True),
    Peer("TRL 1.12.0 float32", *NEW, "float32", {"shared": (6, 8)}),
    Peer("TRL 1.12.0 bfloat16", *NEW, "bfloat16", {"shared": (3, 4), "separate": (1.9, 2.5)}),
    Peer("TRL 0.11.4 float32", *OLD, "float32", {"shared": (3.8, 5)}),
    Peer("TRL 0.11.4 bfloat16", *OLD, "bfloat16", {"shared": (2.4, 3.2)}),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of an update."""

    rows: int = 16
    prompt_tokens: int = 32
    new_tokens: int = 48
    epochs: int = 4
    minibatches: int = 1


MINIBATCHES = (1, 1)
FULL, QUICK = Size(), Size(rows=8, prompt_tokens=16, new_tokens=16, epochs=1)


def arguments() -> Parser:
    """Return the command line of this benchmark."""
    made = parser(__doc__)
    add_turns(made)
    add_size(made, "--minibatches", "optimizer steps per epoch", MINIBATCHES, choices=(1, 2, 4, 8))
    made.add_argument("--updates", type=positive, default=1, help="timed updates of each process, after one to warm up")
    add_dtype_and_seed(made, "our compute type", "seed of prompts, reward model and sampling")
    return made


def prepared(directory: Path, size: Size, options: Any) -> dict[str, Any]:
    """Write the inputs of all sides, and return the work that they share."""
    policy = resolve(options.model)
    texts, ids = Texts(policy, options.seed).of_lengths([size.prompt_tokens] * size.rows)
    return {
        "policy": policy,
        "reward_model": make_reward_model(policy, directory / "reward_model", options.seed),
        "prompts": write_jsonl(directory / "prompts.jsonl", [{"prompt": text} for text in texts]),
        "prompt_ids": ids,
        "new_tokens": size.new_tokens,
        "epochs": size.epochs,
        "minibatches": size.minibatches,
        "updates": 1 + options.updates,
        "seed": options.seed,
    }


def comparisons(size: Size, options: Any) -> Iterator[Row]:
    """Write the inputs of all sides, and yield the rows of all peers."""
    with tempfile.TemporaryDirectory() as directory:
        yield from measured(prepared(Path(directory), size, options), size, options)


def measured(work: dict[str, Any], size: Size, options: Any) -> Iterator[Row]:
    """Run each peer and ours in turn, and yield the rows of each peer as soon as they are ready."""
    dtype = compute_dtype(options.dtype, torch.device("cpu"))
    shape, limits = shape_of(work["policy"]), measure_limits(dtype, budget_of(options))
    sizes = {"rows": size.rows, "prompt_tokens": size.prompt_tokens, "new_tokens": size.new_tokens}
    for peer, critics in _chosen(options):
        ours = {critic: _our_side(critic, work, options) for critic in critics}
        found = in_turn([peer.side(work), *ours.values()], options.pairs, options.timeout)
        for critic, side in ours.items():
            is_separate = critic == "separate"
            least = update_seconds(shape, limits, **sizes, epochs=size.epochs, separate_critic=is_separate)
            row = comparison("ppo_vs_trl", _name(peer, critic), found[peer.name], found[side.name])
            yield _completed(row, peer.goals.get(critic), least, size, options)


def _our_side(critic: str, work: dict[str, Any], options: Any) -> Side:
    given = {"dtype": options.dtype, "critic": critic, "settings": options.set}
    return Side(name=f"ours, {critic} critic", worker="workers/our_ppo.py", work={**work, **given})


def _completed(row: Row, goal: tuple[float, float] | None, least: float, size: Size, options: Any) -> Row:
    return completed(row, asdict(size), least, goal if size == FULL and has_goals(options) else None)


def _chosen(options: Any) -> list[tuple[Peer, list[str]]]:
    """Return the peers, and the critics of ours that each is compared with; the new release with both."""
    peers = PEERS[:1] if options.quick and not options.only else PEERS
    pairs = []
    for peer in peers:
        critics = ["shared"] if peer.pins == OLD[1] or options.quick else ["shared", "separate"]
        critics = [critic for critic in critics if options.only in _name(peer, critic)]
        if critics:
            pairs.append((peer, critics))
    return pairs


def _name(peer: Peer, critic: str) -> str:
    return f"{peer.name} / ours, {critic} critic"


def main() -> None:
    """Measure, print the table, write the JSON."""
    made = arguments()
    options = made.parse_args()
    if not _chosen(options):
        refuse_only(made, options)
    settle(made, options, pairs=PAIRS, minibatches=MINIBATCHES)
    size = QUICK if options.quick else Size(minibatches=options.minibatches)
    collect(comparisons(size, options), made, options.json)


if __name__ == "__main__":
    main()
