"""Whether a long PPO run stays as small and as fast as it began, with everything on that keeps something in memory.

On: running scales of a reward and of the score, caches of rewards, own best responses as resets, an adaptive KL,
samples with their token traces, checkpoints, held-out evaluation. The model is tiny, so that what grows is seen. Left
out is `trainer.history`, which keeps a row of about 60 numbers a step because it is the answer of `train`. oneDNN keeps
a compiled product for each shape it meets, up to 1,024 of them, some 10 MiB in 1,000 steps where shapes differ;
here it keeps few, so that what is ours is seen (an ONEDNN_PRIMITIVE_CACHE_CAPACITY of yours counts).
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8")  # before torch is imported

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from rlhf import Callback, PPOSettings, PPOTrainer
from rlhf.api.callbacks import Trainer
from rlhf.data.reading.rows import stream_rows

ROOT = Path(__file__).parents[1]
TINY = ROOT / "data" / "tiny_model"
MEMORY_SLOPE, CPU_SLOPE = 2.0, 0.05
"""What counts as flat over the last half: MiB in 1,000 steps; share of the CPU time of a step in 1,000 steps."""


def resident_mib() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


class Watcher(Callback):
    """Prints memory and CPU a step now and then, and keeps them."""

    def __init__(self, every: int) -> None:
        """Look every so many steps."""
        self.every = every
        self.rows: list[tuple[int, float, float]] = []
        """Step, resident MiB, CPU seconds a step since the last row."""
        self._cpu = time.process_time()

    def on_step(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        """Keep and print a row."""
        del trainer.history[:-1]
        if step % self.every == 0:
            now = time.process_time()
            self.rows.append((step, resident_mib(), (now - self._cpu) / self.every))
            self._cpu = now
            _, memory, cpu = self.rows[-1]
            print(f"step {step:>6}  {memory:8.1f} MiB  {1000 * cpu:7.1f} ms CPU a step", flush=True)

    def on_save(self, trainer: Trainer, path: Path) -> None:
        """Nothing."""

    def on_evaluate(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""


def verdict(rows: Sequence[tuple[int, float, float]]) -> tuple[bool, str]:
    """Say whether the last half of the rows is flat, from the slopes of lines fitted to it."""
    half = rows[len(rows) // 2 :]
    steps = [row[0] / 1000 for row in half]
    memory = statistics.linear_regression(steps, [row[1] for row in half]).slope
    cpu = statistics.linear_regression(steps, [row[2] for row in half]).slope / statistics.mean(row[2] for row in half)
    is_flat = memory <= MEMORY_SLOPE and cpu <= CPU_SLOPE
    told = f"last half, in 1,000 steps: memory {memory:+.2f} MiB, CPU a step {cpu:+.1%}"
    return is_flat, f"{told}: {'flat' if is_flat else 'not flat'}"


def tiny_policy(directory: Path, width: int) -> Path:
    """Save a random model of the tiny model's shape, or narrower, with its tokenizer."""
    torch.manual_seed(0)
    shape = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
    config = AutoConfig.from_pretrained(TINY, trust_remote_code=False, initializer_range=0.2, **shape)
    config.num_attention_heads = config.num_key_value_heads = 2
    config.head_dim = width // 2
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(directory)
    AutoTokenizer.from_pretrained(TINY, trust_remote_code=False).save_pretrained(directory)
    return directory


def settings(steps: int) -> PPOSettings:
    """Return a run with everything on."""
    return PPOSettings(
        steps=steps,
        rollout_batch_size=8,
        minibatches=1,
        epochs=1,
        samples_every=10,
        model={"precision": "float32"},
        sampling={"max_new_tokens": 12},
        score={"normalise": "running", "missing_eos_penalty": 0.5},
        kl_control={"controller": "adaptive"},
        reset={"fraction": 0.5, "demonstrations": {"kind": "own_best", "size": 64}},
        optimizer={"learning_rate": 1e-4},
        checkpoints={"every": 100},
    )


def share_of_e(completions: Sequence[str], **_: object) -> list[float]:
    """Return how much of each response is the letter e."""
    return [text.count("e") / max(len(text), 1) for text in completions]


def main() -> int:
    """Run, print a row now and then and the verdict; status 1 if the run is not flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="PPO steps")
    parser.add_argument("--every", type=int, default=100, help="steps between rows")
    parser.add_argument("--width", type=int, default=32, help="of the model")
    options = parser.parse_args()
    prompts = [row.values["prompt"] for row in stream_rows(ROOT / "data" / "ppo_prompts.jsonl")]
    rewards = [
        {"function": share_of_e, "cache": 500, "normalise": "running", "name": "e"},
        {"kind": "length", "at_most": 8, "unit": "tokens", "weight": 0.1, "cache": 500},
    ]
    with tempfile.TemporaryDirectory() as work:
        watcher = Watcher(options.every)
        policy = tiny_policy(Path(work) / "policy", options.width)
        output = Path(work) / "run"
        trainer = PPOTrainer(
            str(policy), reward=rewards, config=settings(options.steps), output_dir=output, callbacks=[watcher]
        )
        trainer.train(prompts[:-16], evaluation=prompts[-16:], evaluate_every=50)
    is_flat, told = verdict(watcher.rows)
    print(told)
    return 0 if is_flat else 1


if __name__ == "__main__":
    sys.exit(main())
