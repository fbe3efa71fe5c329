"""Three rewards with weights: a preference model, a sentiment classifier with two labels, and a limit on length.

The preference model is that of `make demo`; the classifier comes from the hub and has its own tokenizer.

python examples/two_models_and_a_rule.py
"""

import argparse

from rlhf import PPOSettings, PPOTrainer


def main() -> None:
    """Train, and print each reward's mean score."""
    parser = argparse.ArgumentParser(description="PPO with two models and a rule as the reward")
    parser.add_argument("--model", default="runs/quickstart/sft/policy", help="the policy")
    parser.add_argument("--preferences", default="runs/quickstart/reward_model/reward_model", help="a reward model")
    parser.add_argument(
        "--sentiment", default="distilbert-base-uncased-finetuned-sst-2-english", help="a sequence classifier"
    )
    parser.add_argument("--label", default="POSITIVE", help="the classifier's label to reward")
    parser.add_argument("--steps", type=int, default=20, help="PPO steps")
    options = parser.parse_args()

    rewards = [
        {"kind": "model", "path": options.preferences, "name": "preferences"},
        {"kind": "model", "path": options.sentiment, "name": "sentiment", "label": options.label, "weight": 0.5},
        {"kind": "length", "unit": "words", "at_most": 20, "weight": 0.1},
    ]
    settings = PPOSettings(steps=options.steps, rollout_batch_size=16, sampling={"max_new_tokens": 24})
    prompts = ["The film opens with", "All in all", "The director has", "What I remember is"]
    trainer = PPOTrainer(options.model, reward=rewards, config=settings)
    for row in trainer.train(prompts):
        means = {name: row[f"reward/{name}/mean"] for name in ("preferences", "sentiment", "length")}
        print(f"step {row['step']:.0f}:", ", ".join(f"{name} {mean:.2f}" for name, mean in means.items()))
    print(trainer.rollout(prompts * 4).completions[0])


if __name__ == "__main__":
    main()
