"""Supervised finetuning: teach a model to answer as in demonstrations, and ask it before and after.

python examples/sft.py
"""

import argparse

from rlhf import SFTSettings, SFTTrainer, generate

QUESTIONS = ("How are you?", "Who are you?", "What is the time?", "Where is the station?", "Is it far?", "Thank you!")
ROWS = [{"prompt": f"Question: {text}\nAnswer:", "completion": " Arr, I be a pirate!"} for text in QUESTIONS]


def main() -> None:
    """Train, print the loss of each step, and save the policy."""
    parser = argparse.ArgumentParser(description="supervised finetuning on a list of demonstrations")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the model")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument("--output", default="runs/sft/policy", help="directory of the policy")
    options = parser.parse_args()

    asked = [ROWS[0]["prompt"]]
    print("before:", generate(options.model, asked, max_new_tokens=12, temperature=0)[0]["response"])
    settings = SFTSettings(steps=options.steps, batch_size=4, optimizer={"learning_rate": 1e-4})
    trainer = SFTTrainer(options.model, config=settings)
    for row in trainer.train(ROWS[:5], evaluation=ROWS[5:], evaluate_every=10):
        held_out = f", held out {row['eval/loss']:.2f}" if "eval/loss" in row else ""
        print(f"step {row['step']:.0f}: loss {row['loss']:.2f}{held_out} nats per token")
    trainer.save(options.output)
    print("after:", generate(options.output, asked, max_new_tokens=12, temperature=0)[0]["response"])


if __name__ == "__main__":
    main()
