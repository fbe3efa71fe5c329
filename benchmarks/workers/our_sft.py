"""Worker: supervised steps of `rlhf`, as `rlhf sft` does them."""

import tempfile
from pathlib import Path
from typing import Any

from rlhf.allocator import keep_memory

keep_memory()  # as the command line does, before torch is there

import torch

from rlhf.config import SftConfig
from rlhf.config.reading.overrides import apply_overrides, parse_overrides
from rlhf.sft import NextTokenObjective, train_sft
from rlhf.training.optimizer import Optimizer
from rlhf.training.supervised import SupervisedSteps
from stopwatch import Stopwatch, serve

MICROBATCH_TOKENS = 640
"""As in the quickstart: with the default of 2,048, eight rows of unequal length are one padded pass."""


def measure(work: dict[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Pass over the rows of `work` as often as it says; the first pass is the warm-up."""
    steps_per_pass = -(-len(work["rows"]) // work["batch_size"])
    num_steps = work["passes"] * steps_per_pass
    _wrap(watch)
    step, learned, compute = SupervisedSteps.step, 0.0, ""

    def timed(steps: SupervisedSteps, index: int) -> dict[str, float]:
        # From before a pass's first step to after its last: the time includes the loop's work between steps.
        nonlocal learned, compute
        if index % steps_per_pass == 0:
            watch.start()
        metrics = step(steps, index)
        learned += metrics["weight"]
        compute = str(next(steps.optimizer.weights.module.parameters()).dtype).removeprefix("torch.")
        if (index + 1) % steps_per_pass == 0:
            watch.lap()
        return metrics

    setattr(SupervisedSteps, "step", timed)  # noqa: B010 - a method is replaced, which an assignment may not
    with tempfile.TemporaryDirectory() as directory:
        train_sft(_config(work, num_steps, directory))
    if learned != work["passes"] * sum(len(row) - 1 for row in work["rows"]):
        raise SystemExit("the texts did not become the token ids that the other side reads")
    return {"steps_per_pass": steps_per_pass, "compute": compute}


def _config(work: dict[str, Any], num_steps: int, directory: str) -> SftConfig:
    settings: dict[str, object] = {
        "output_dir": str(Path(directory) / "sft"),
        "seed": work["seed"],
        "model": {"path": work["policy"], "precision": work["dtype"]},
        "data": {"path": work["texts"], "max_length": max(len(row) for row in work["rows"])},
        "loss_on": "all",
        "append_eos": False,
        "steps": num_steps,
        "batch_size": work["batch_size"],
        "microbatch_tokens": MICROBATCH_TOKENS,
        "optimizer": {"learning_rate": 2e-5},
    }
    return SftConfig.model_validate(apply_overrides(settings, parse_overrides(work["settings"])))


def _wrap(watch: Stopwatch) -> None:
    watch.wrap(NextTokenObjective, "loss", "forward")
    watch.wrap(torch.Tensor, "backward", "backward")
    watch.wrap(Optimizer, "step", "optimizer")


if __name__ == "__main__":
    serve(measure)
