"""A sparse reward that the policy almost never earns: 1 for a response that closes with a certain line, else 0.

Half of the episodes begin inside a demonstration, some near enough to its end for the policy to earn the reward.
Compare `reset/scores_at_prompts` with a run of `--fraction 0`, in which it stays 0. See docs/resets.md.

python examples/sparse_reward_with_resets.py
"""

import argparse
import json
import tempfile
from pathlib import Path

from rlhf import PPOSettings, PPOTrainer

CLOSING = "That is all I have to say."
DEMONSTRATIONS = {
    "The film was": f" long, and the hero was tired. {CLOSING}",
    "My dinner was": f" cold, and nobody came. {CLOSING}",
    "The weather is": f" mild, and the streets are dry. {CLOSING}",
    "Berlin is": f" large, and I know little of it. {CLOSING}",
}


def closes_well(completions: list[str], **columns: list[object]) -> list[float]:
    """Return 1 for a response that ends with the line."""
    return [float(text.rstrip().endswith(CLOSING)) for text in completions]


def main() -> None:
    """Train, and print the scores of episodes from prompts and from inside demonstrations."""
    parser = argparse.ArgumentParser(description="a sparse reward with resets into demonstrations")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the policy")
    parser.add_argument("--steps", type=int, default=40, help="PPO steps")
    parser.add_argument("--fraction", type=float, default=0.5, help="share of episodes begun in a demonstration")
    options = parser.parse_args()

    rows = [{"prompt": prompt, "completion": text} for prompt, text in DEMONSTRATIONS.items()]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "demonstrations.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = PPOSettings(
            steps=options.steps,
            rollout_batch_size=32,
            sampling={"max_new_tokens": 32},
            reset={"fraction": options.fraction, "demonstrations": {"kind": "data", "path": str(file)}},
        )
        trainer = PPOTrainer(options.model, reward=closes_well, config=settings)
        for row in trainer.train(list(DEMONSTRATIONS)):
            begun = {name: row.get(f"reset/scores_at_{name}", 0.0) for name in ("prompts", "resets")}
            print(f"step {row['step']:.0f}: from prompts {begun['prompts']:.2f}, from resets {begun['resets']:.2f}")


if __name__ == "__main__":
    main()
