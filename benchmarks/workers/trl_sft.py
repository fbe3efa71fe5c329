"""Worker: supervised steps of TRL 1.16.0's `SFTTrainer`, run by the Python of its environment."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from stopwatch import Stopwatch, serve


class Laps(TrainerCallback):
    """Ends a round of the stopwatch with each pass over the rows."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Start a pass."""
        self.watch.start()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """End a pass."""
        self.watch.lap()


def measure(work: dict[str, Any], watch: Stopwatch) -> dict[str, Any]:
    """Pass over the rows of `work` as often as it says; the first pass is the warm-up."""
    model = AutoModelForCausalLM.from_pretrained(work["policy"], dtype=getattr(torch, work["dtype"]))
    with tempfile.TemporaryDirectory() as directory:
        trainer = SFTTrainer(
            model=model,
            args=_settings(work, directory),
            train_dataset=Dataset.from_dict({"input_ids": work["rows"]}),
            processing_class=AutoTokenizer.from_pretrained(work["policy"]),
            callbacks=[Laps(watch)],
        )
        batches = len(trainer.get_train_dataloader())
        watch.wrap(trainer, "compute_loss", "forward")
        watch.wrap(trainer.accelerator, "backward", "backward")
        trainer.create_optimizer()
        watch.wrap(trainer.optimizer, "step", "optimizer")
        trainer.train()
    return {"steps_per_pass": batches}


def _settings(work: dict[str, Any], directory: str) -> SFTConfig:
    return SFTConfig(
        output_dir=directory,
        use_cpu=True,
        bf16=False,  # the weights themselves are in work["dtype"]
        gradient_checkpointing=False,  # on by default, and slower
        per_device_train_batch_size=work["batch_size"],
        gradient_accumulation_steps=1,
        num_train_epochs=work["passes"],
        max_length=max(len(row) for row in work["rows"]),
        packing=work["packing"],
        learning_rate=2e-5,
        max_grad_norm=1.0,
        report_to="none",
        save_strategy="no",
        seed=work["seed"],
    )


if __name__ == "__main__":
    serve(measure)
