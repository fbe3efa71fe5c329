"""The whole path in Python: SFT, a reward model, PPO against it, and a comparison of both policies.

To resume after an interruption, run it again: finished stages are skipped, a stopped one resumes from its checkpoint.

python examples/whole_path.py
"""

import argparse
from pathlib import Path

from rlhf import (
    EvaluateSettings,
    PPOSettings,
    PPOTrainer,
    RewardSettings,
    RewardTrainer,
    SFTSettings,
    SFTTrainer,
    evaluate,
)

DATA = {"max_length": 96}


def main() -> None:
    """Run the stages, each from the previous one's result, and print the comparison."""
    parser = argparse.ArgumentParser(description="SFT, reward model, PPO and evaluation")
    parser.add_argument("--model", default="fetch:smollm2-135m-instruct", help="directory or hub name of the start")
    parser.add_argument("--data", default="fetch:movie-reviews", help="directory of the data files")
    parser.add_argument("--layers", type=int, default=12, help="blocks that are trained, from the top")
    parser.add_argument("--steps", type=int, default=20, help="steps of each stage")
    parser.add_argument("--output", default="runs/whole_path", help="directory of the runs")
    options = parser.parse_args()
    data, output, tuning = options.data, Path(options.output), {"trainable_layers": options.layers}
    cloned, preferred, tuned = output / "sft/policy", output / "reward_model/reward_model", output / "ppo/policy"

    if not cloned.exists():
        sft = SFTSettings(steps=options.steps, model=tuning, data=DATA, checkpoints={"every": 10})
        SFTTrainer(options.model, config=sft, output_dir=output / "sft").train(f"{data}/sft_train.jsonl")

    if not preferred.exists():
        reward = RewardSettings(steps=options.steps, model=tuning, data=DATA, checkpoints={"every": 10})
        with RewardTrainer(cloned, config=reward, output_dir=output / "reward_model") as trainer:
            trainer.train(f"{data}/preference_train.jsonl", demonstrations=f"{data}/sft_eval.jsonl")

    if not tuned.exists():
        ppo = PPOSettings(
            steps=options.steps,
            model=tuning,
            prompts={"max_length": 32},
            sampling={"max_new_tokens": 40},
            score={"missing_eos_penalty": 2.5},
            checkpoints={"every": 10},
        )
        with PPOTrainer(cloned, reward=preferred, config=ppo, output_dir=output / "ppo") as trainer:
            for row in trainer.train(f"{data}/ppo_prompts.jsonl"):
                print(f"step {row['step']:.0f}: score {row['objective/scores']:.2f}, KL {row['objective/kl']:.2f} nats")

    settings = EvaluateSettings(prompts={"max_length": 32}, decoding={"max_new_tokens": 40})
    prompts, policies = f"{data}/heldout_prompts.jsonl", {"sft": cloned, "ppo": tuned}
    print(evaluate(policies, prompts, config=settings, reward_model=preferred).to_table())


if __name__ == "__main__":
    main()
