"""Worker: PPO updates of TRL 1.12.0 (`trl.experimental.ppo`, separate critic), run by the Python of its environment."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

from stopwatch import Stopwatch, serve


class Laps(TrainerCallback):
    """Ends a round of the stopwatch with each PPO update."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the first update."""
        self.watch.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """End an update."""
        self.watch.lap()


def measure(work: dict[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Do the updates of `work`, the first of which is the warm-up."""
    dtype = getattr(torch, work["dtype"])
    policy, reference = (AutoModelForCausalLM.from_pretrained(work["policy"], dtype=dtype) for _ in range(2))
    kind = AutoModelForSequenceClassification
    reward, critic = (kind.from_pretrained(work["reward_model"], dtype=dtype, num_labels=1) for _ in range(2))
    with tempfile.TemporaryDirectory() as directory:
        trainer = PPOTrainer(
            args=_settings(work, directory),
            processing_class=AutoTokenizer.from_pretrained(work["policy"], padding_side="left"),
            model=policy,
            ref_model=reference,
            reward_model=reward,
            value_model=critic,
            train_dataset=Dataset.from_dict({"input_ids": work["prompt_ids"]}),
            callbacks=[Laps(watch)],
        )
        _wrap(watch, trainer)
        trainer.train()
    return {}


def _settings(work: dict[str, Any], directory: str) -> PPOConfig:
    rows = len(work["prompt_ids"])
    return PPOConfig(
        output_dir=directory,
        use_cpu=True,
        # bf16 has no effect in this trainer; ACCELERATE_MIXED_PRECISION sets mixed precision.
        bf16=False,
        gradient_checkpointing=False,  # on by default, and slower
        # With accumulation the optimizer would step only once per that many minibatches.
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=1,
        num_mini_batches=work["minibatches"],
        num_ppo_epochs=work["epochs"],
        local_rollout_forward_batch_size=rows,
        total_episodes=rows * work["updates"],
        response_length=work["new_tokens"],
        temperature=1.0,
        stop_token=None,
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        seed=work["seed"],
    )


def _wrap(watch: Stopwatch, trainer: PPOTrainer) -> None:
    def forward(model: Any, *_: Any) -> str:
        return "reference" if model is trainer.ref_model else "forward"

    def reward(model: Any, *_: Any) -> str:
        return "reward" if model is trainer.reward_model else "values"

    watch.wrap(ppo_trainer, "batch_generation", "generation")
    watch.wrap(ppo_trainer, "forward", forward)
    watch.wrap(ppo_trainer, "get_reward", reward)
    watch.wrap(trainer.accelerator, "backward", "backward")
    watch.wrap(trainer.optimizer, "step", "optimizer")


if __name__ == "__main__":
    serve(measure)
