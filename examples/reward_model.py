"""A reward model from pairs: teach a model which of two answers people prefer, and let it judge new pairs.

python examples/reward_model.py
"""

import argparse

from rlhf import RewardSettings, RewardTrainer

SUBJECTS = ("The film", "The book", "The soup", "Our teacher", "The sea", "This town", "The weather", "Your idea")
PAIRS = [
    {"prompt": f"{subject} is", "chosen": " lovely, and I would come again.", "rejected": " dull, and I left early."}
    for subject in SUBJECTS
]


def main() -> None:
    """Train, print loss and accuracy, and save the reward model."""
    parser = argparse.ArgumentParser(description="a reward model from a list of pairs")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the model")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--output", default="runs/reward_model/reward_model", help="directory of the reward model")
    options = parser.parse_args()

    settings = RewardSettings(
        steps=options.steps, batch_size=6, model={"lora": {"r": 8}}, optimizer={"learning_rate": 1e-4}
    )
    trainer = RewardTrainer(options.model, config=settings)
    # Its scores get mean 0 on these texts: a policy that writes like them scores about 0.
    texts = [{"text": f"{pair['prompt']}{pair['chosen']}"} for pair in PAIRS]
    for row in trainer.train(PAIRS[:6], evaluation=PAIRS[6:], demonstrations=texts):
        print(f"step {row['step']:.0f}: loss {row['loss']:.2f} nats per pair, accuracy {row['accuracy']:.0%}")
    print(f"held-out accuracy: {trainer.evaluate(PAIRS[6:])['eval/accuracy']:.0%}")
    trainer.save(options.output)


if __name__ == "__main__":
    main()
