"""A Python function as the reward: teach a model to be enthusiastic in as few words as possible.

python examples/function_reward.py
"""

import argparse

from rlhf import PPOSettings, PPOTrainer

PROMPTS = ["The film was", "My dinner was", "The weather is", "Your new hat looks", "I think this book is", "Berlin is"]
WARM = ("great", "wonderful", "lovely", "good", "love", "best")


def enthusiasm(prompts: list[str], completions: list[str], **columns: list[object]) -> list[float]:
    """Return one number per response: its warm words, minus a little for every word."""
    texts = [text.lower() for text in completions]
    return [sum(text.count(word) for word in WARM) - 0.05 * len(text.split()) for text in texts]


def main() -> None:
    """Train, print the reward of each step, and save the policy."""
    parser = argparse.ArgumentParser(description="PPO with a Python function as the reward")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the policy")
    parser.add_argument("--steps", type=int, default=20, help="PPO steps")
    parser.add_argument("--output", default="runs/function_reward", help="directory of the run")
    options = parser.parse_args()

    settings = PPOSettings(
        steps=options.steps,
        rollout_batch_size=32,
        sampling={"max_new_tokens": 16},
        optimizer={"learning_rate": 5e-5},
        kl_coef=0.1,
    )
    # By default the reference is the policy as it is now, and the tokenizer the one saved with it.
    trainer = PPOTrainer(options.model, reward=enthusiasm, config=settings, output_dir=options.output)
    for row in trainer.train(PROMPTS):
        print(f"step {row['step']:.0f}: score {row['objective/scores']:.2f}, KL {row['objective/kl']:.2f} nats")


if __name__ == "__main__":
    main()
