"""The batch on which all rungs are compared: the policy that samples it, its prompts, and its summary."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf.batches import Experience
from rlhf.data.reading.text_files import write_jsonl
from rlhf.functional.masking import masked_mean
from rlhf.functional.statistics import explained_variance
from rlhf.lab.language_model.ppo_run import assembled, do_steps
from rlhf.lab.section import Settings
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.starts.start_states import draw_start_states
from rlhf.training.randomness import generator

OPENERS = (
    "I thought", "We felt that", "Honestly,", "In the end", "To my mind", "As for me,", "They say", "On the whole",
)  # fmt: skip
SUBJECTS = (
    "the movie", "the plot", "the acting", "the music", "the ending", "the hero", "the script", "the camera work",
)  # fmt: skip
"""Every opener with every subject begins a film review: 64 prompts."""
SAMPLES = 4
"""Responses to each prompt, as rloo and group need them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the experiment is."""

    warmup_steps: int = 6
    warmup_batch: int = 64
    """Episodes of a PPO step of the warm-up."""
    num_minibatches: int = 32
    prompts_each: int = 2
    """Prompts of a minibatch, with `SAMPLES` responses each."""
    max_new_tokens: int = 16
    num_layers: int = 1
    """Blocks whose gradient is measured."""
    at_most: int = 40
    """Characters of a response that cost nothing."""

    @property
    def episodes_each(self) -> int:
        """Episodes of a minibatch."""
        return self.prompts_each * SAMPLES


FULL = Sizes()
QUICK = Sizes(warmup_steps=1, warmup_batch=8, num_minibatches=8, prompts_each=1, max_new_tokens=6, at_most=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the page says about the batch."""

    num_episodes: int
    num_tokens: int
    num_weights: int
    """Numbers in a gradient."""
    score: float
    """Mean, before KL."""
    score_std: float
    kl: float
    """Nats per sequence, to the reference."""
    explained_variance: float
    """Explained variance of the returns by the critic, on this batch, which it was not trained on."""
    kl_share: float
    """Root mean square of the difference between trajectory and reward_to_go, as a share of that of trajectory."""


def warmed_up(settings: Settings, sizes: Sizes, directory: Path) -> PPORun:
    """Return a PPO run after its warm-up: the critic is partly trained, and the policy has left its reference."""
    prompts = [{"prompt": f"{opener} {subject} was"} for opener in OPENERS for subject in SUBJECTS]
    write_jsonl(directory / "prompts.jsonl", prompts)
    parts = assembled(_ppo_settings(settings, sizes, directory))
    do_steps(parts, sizes.warmup_steps, directory / "samples")
    return parts


def collect(parts: PPORun, sizes: Sizes, seed: int) -> Collected:
    """Sample the batch: different prompts, in random order, `SAMPLES` responses to each."""
    trainer, numbers = parts.trainer, generator(seed, "lab", "gradient_noise")
    order = torch.randperm(len(parts.prompts), generator=numbers)[: sizes.num_minibatches * sizes.prompts_each]
    prompts = [parts.prompts[place] for place in order.tolist()]
    pad_id, device = int(trainer.collector.tokenizer.pad_token_id), trainer.processes.device
    starts = draw_start_states(prompts, pad_id, device, num_samples=SAMPLES)
    return trainer.collector.collect(starts, numbers)


def summary(collected: Collected, experiences: Mapping[str, Experience], num_weights: int) -> Batch:
    """Return the summary of the batch, with numbers from some of the rungs."""
    rollout = collected.rollout
    mask = rollout.response_mask
    whole, to_go = experiences["trajectory"].advantages, experiences["reward_to_go"].advantages
    values_and_returns = rollout.values, experiences["baseline"].returns
    return Batch(
        num_episodes=len(mask),
        num_tokens=int(mask.sum()),
        num_weights=num_weights,
        score=float(rollout.scores.mean()),
        score_std=float(rollout.scores.std()),
        kl=float(experiences["baseline"].kl.sum(1).mean()),
        explained_variance=float(explained_variance(*values_and_returns, mask)),
        kl_share=float((masked_mean((whole - to_go).square(), mask) / masked_mean(whole.square(), mask)).sqrt()),
    )


def _ppo_settings(settings: Settings, sizes: Sizes, directory: Path) -> dict[str, Any]:
    return {
        "output_dir": str(directory),
        "seed": settings.seed,
        # float32: bfloat16 would add its own scatter to the gradients.
        "model": {"path": settings.model, "trainable_layers": sizes.num_layers, "precision": "float32"},
        "prompts": {"path": str(directory / "prompts.jsonl")},
        "rewards": [{"kind": "length", "unit": "characters", "at_most": sizes.at_most, "weight": 0.1}],
        "sampling": {"max_new_tokens": sizes.max_new_tokens},
        "optimizer": {"learning_rate": 1e-4, "schedule": "constant"},
        "value_optimizer": {"learning_rate": 5e-3, "schedule": "constant"},
        "value_clip_range": None,
        "steps": sizes.warmup_steps,
        "rollout_batch_size": sizes.warmup_batch,
        "num_samples_per_prompt": SAMPLES,
        # Many small updates: they train the critic and move the policy a little.
        "minibatches": sizes.warmup_batch // 8,
        "epochs": 2,
        "kl_coef": 0.05,
    }
