"""What `rlhf report` costs: building the page of a long run, and what PPO spends on writing what the page needs.

    python benchmarks/report_cost.py                                   # the page: 2,000 steps, 20,000 samples
    python benchmarks/report_cost.py --config configs/smoke/ppo.yaml   # the share of a PPO step that traces take

The page is built from a run that is written here, into a temporary directory. Traces are timed within real steps of the
configuration, written at every `samples_every` steps as in a run.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from rlhf.config import PPOConfig
from rlhf.config.reading.loader import load_config
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.stage import assemble_alone
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.run.traces import Tracer
from rlhf.report import write_report

METRICS = (
    *("objective/scores", "objective/kl", "objective/entropy", "objective/scores_std", "objective/rlhf_reward"),
    *("val/response_length", "val/share_ended", "val/explained_variance", "policy/clipfrac_avg", "loss/policy_avg"),
    *("loss/value_avg", "lr/policy", "grad_norm/policy", "reward/model/mean", "reward/model/length_correlation"),
)
WORDS = (
    "film",
    "story",
    "scene",
    "actor",
    "which",
    "never",
    "always",
    "somehow",
    "brilliant",
    "dull",
    "of",
    "the",
    "and",
)
TOKENS = 48


def write_run(directory: Path, steps: int, samples: int) -> None:
    """Write the files of a PPO run with as many steps and samples."""
    noise, every = random.Random(0), 5  # noqa: S311 - not for secrets
    (directory / "samples").mkdir(parents=True)
    rows = [
        {"step": step, **{name: noise.gauss(step / steps, 0.2) for name in METRICS}} for step in range(1, steps + 1)
    ]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    each = samples * every // steps
    for step in range(every, steps + 1, every):
        lines = [_sample(noise, number, step, is_traced=number < 2) for number in range(each)]
        (directory / "samples" / f"step-{step:06d}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines)
        )


def _sample(noise: random.Random, number: int, step: int, *, is_traced: bool) -> dict[str, Any]:
    words = [f" {noise.choice(WORDS)}" for _ in range(TOKENS)]
    row = {
        "prompt": f"The film {number} {step % 35}",
        "response": "".join(words),
        "score": noise.gauss(0, 1),
        "kl": 3.0,
    }
    names = ("advantage", "value", "kl", "token_score", "surprise", "ratio", "clipped")
    numbers = {name: [round(noise.gauss(0, 1), 3) for _ in words] for name in names}
    trace = {"trace": {"text": words, "forced": 0, **numbers}} if is_traced else {}
    return {**row, "ended": True, "tokens": TOKENS, **trace}


def page(steps: int, samples: int) -> None:
    """Time the page of a long run, and print its size."""
    with tempfile.TemporaryDirectory() as place:
        write_run(Path(place), steps, samples)
        started = time.perf_counter()
        path = write_report(Path(place))
        seconds = time.perf_counter() - started
        size = path.stat().st_size / 1e6
        print(f"page of {steps} steps and {samples} samples: {seconds:.1f} s (limit 30), {size:.2f} MB (limit 15)")


class TimedTracer(Tracer):
    """A tracer that adds up its time."""

    seconds = 0.0

    def traces(self, *arguments: Any) -> dict[int, dict[str, Any]]:
        """Trace, and count the time."""
        started = time.perf_counter()
        found = super().traces(*arguments)
        TimedTracer.seconds += time.perf_counter() - started
        return found


def traces(path: Path, overrides: list[str], steps: int) -> None:
    """Time the traces within real PPO steps."""
    config = load_config(PPOConfig, path, overrides)
    parts = assemble_alone(config, "the benchmark measures one process")
    with tempfile.TemporaryDirectory() as place:
        run = PPOSteps(parts.trainer, ListedPrompts(parts.prompts, config), Path(place))
        run.step(0)  # warms up
        run._tracer = TimedTracer(parts.trainer.collector.tokenizer, config)
        started = time.perf_counter()
        for index in range(1, steps + 1):
            run.step(index)
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_size for file in Path(place).iterdir()) / len(list(Path(place).iterdir()))
    parts.trainer.collector.scorer.close()
    share = TimedTracer.seconds / seconds
    print(f"traces: {TimedTracer.seconds:.3f} s of {seconds:.2f} s in {steps} steps, {share:.2%} (limit 2%)")
    print(f"samples of a step: {size / 1e3:.1f} kB")


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, help="a configuration of rlhf ppo: measure traces within its steps")
    parser.add_argument("--steps", type=int, help="steps of the run (2000 for the page, 20 with --config)")
    parser.add_argument("--samples", type=int, default=20_000, help="samples of the page (%(default)s)")
    parser.add_argument("overrides", nargs="*", help="path.to.key=value for --config")
    given = parser.parse_args()
    if given.config is None:
        page(given.steps or 2000, given.samples)
    else:
        traces(given.config, given.overrides, given.steps or 20)


if __name__ == "__main__":
    main()
