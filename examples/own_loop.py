"""Your own PPO loop, from four calls: look at everything on the way, and change what you like.

python examples/own_loop.py
"""

import argparse
from collections.abc import Iterator

from rlhf import PPOSettings, PPOTrainer

SUBJECTS = ("The film", "The book", "My neighbour", "This town", "The soup", "Our teacher", "The sea", "Your idea")


def prompts() -> Iterator[str]:
    """Yield prompts endlessly: a generator may invent them, or choose them by what the policy does now."""
    while True:
        yield from (f"{subject} is" for subject in SUBJECTS)


def commas(completions: list[str], **columns: list[object]) -> list[float]:
    """Return the number of commas in each response."""
    return [float(text.count(",")) for text in completions]


def main() -> None:
    """Train, with our own bonus on top of the reward."""
    parser = argparse.ArgumentParser(description="your own PPO loop")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the policy")
    parser.add_argument("--steps", type=int, default=10, help="PPO steps")
    options = parser.parse_args()

    settings = PPOSettings(steps=options.steps, rollout_batch_size=16, sampling={"max_new_tokens": 16})
    trainer = PPOTrainer(options.model, reward=commas, config=settings)
    for step, batch in enumerate(trainer.batches(prompts()), start=1):
        rollout = trainer.rollout(batch)
        scored = trainer.score(rollout)
        new = {text.strip().lower() for text in rollout.completions}
        scores = [score + 0.5 * len(new) / len(scored.scores) for score in scored.scores]
        experience = trainer.make_experience(rollout, scores)
        metrics = trainer.update(experience)
        print(f"step {step}: score {metrics['objective/scores']:.2f}, KL {metrics['objective/kl']:.2f} nats")
        print("   ", max(zip(scores, rollout.completions, strict=True))[1])


if __name__ == "__main__":
    main()
