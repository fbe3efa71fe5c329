"""Worker: PPO updates of `rlhf`, assembled as `rlhf ppo` does."""

import tempfile
from pathlib import Path
from typing import Any

from rlhf.allocator import keep_memory

keep_memory()  # as the command line does, before torch is there

import torch

from rlhf.config import PPOConfig
from rlhf.config.reading.overrides import apply_overrides, parse_overrides
from rlhf.ppo.run.stage import assemble
from rlhf.ppo.trainer import PPO
from rlhf.stage.frame import frame
from stopwatch import Stopwatch, serve

FULL_PASS = 1 << 20
"""A token budget that no benchmark reaches: a minibatch is one pass, as in TRL."""


def measure(work: dict[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Do the updates of `work`, the first of which is the warm-up."""
    with tempfile.TemporaryDirectory() as directory:
        config = _config(work, directory)
        with frame(config, "benchmark") as run:
            parts = assemble(config, run)
            trainer = parts.trainer
            if [list(prompt.ids) for prompt in parts.prompts] != work["prompt_ids"]:
                raise SystemExit("the prompts' texts did not become the token ids that the other side reads")
            trainer.collector.eos_ids = ()  # every response has all its tokens, on every side
            _wrap(watch, trainer)
            watch.start()
            for _ in range(work["updates"]):
                result = trainer.step(parts.prompts)
                watch.lap()
            trainer.collector.scorer.close()
    mask = result.experience.rollout.response_mask
    return {"tokens": int(mask.sum()), "compute": str(run.dtype).removeprefix("torch.")}


def _config(work: dict[str, Any], directory: str) -> PPOConfig:
    prompts = work["prompt_ids"]
    model = {"path": work["policy"], "precision": work["dtype"]}
    settings: dict[str, object] = {
        "output_dir": str(Path(directory) / "ppo"),
        "seed": work["seed"],
        "model": model,
        "prompts": {"path": work["prompts"], "max_length": len(prompts[0])},
        "rewards": [{"kind": "model", "path": work["reward_model"]}],
        "sampling": {"max_new_tokens": work["new_tokens"], "temperature": 1.0},
        "steps": work["updates"],
        "rollout_batch_size": len(prompts),
        "minibatches": work["minibatches"],
        "epochs": work["epochs"],
        "microbatch_tokens": FULL_PASS,
        "optimizer": {"learning_rate": 3e-6},
    }
    if work["critic"] == "separate":
        settings |= {"critic": "separate", "critic_model": {**model, "path": work["reward_model"]}}
    return PPOConfig.model_validate(apply_overrides(settings, parse_overrides(work["settings"])))


def _wrap(watch: Stopwatch, trainer: PPO) -> None:
    def forward(*_: Any, **__: Any) -> str:
        return "forward" if torch.is_grad_enabled() else "values"

    collector = trainer.collector
    watch.wrap(collector, "respond", "generation")
    watch.wrap(collector.scorer, "score", "reward")
    watch.wrap(collector.reference, "logprobs", "reference")
    watch.wrap(trainer.policy, "forward", forward)
    watch.wrap(torch.Tensor, "backward", "backward")
    watch.wrap(trainer.optimizer, "step", "optimizer")


if __name__ == "__main__":
    serve(measure)
