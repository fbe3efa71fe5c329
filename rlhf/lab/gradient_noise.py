"""Experiment: how much each rung's gradient scatters on a language model, all rungs on the same collected batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from rlhf.batches import Experience, join
from rlhf.config import PPOConfig
from rlhf.functional.masking import masked_mean
from rlhf.functional.statistics import explained_variance
from rlhf.lab.assembled import assembled
from rlhf.lab.gradient_report import Batch, Measured, figures_of, finding, painted, table
from rlhf.lab.gradient_statistics import inner_products
from rlhf.lab.openers import opener_rows, write_rows
from rlhf.lab.section import Section, Settings
from rlhf.ppo.experience import make_experience
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import Parts
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.starts.start_states import draw_start_states
from rlhf.ppo.trainer import PPO
from rlhf.training.randomness import generator

SAMPLES = 4
"""Responses to each prompt, as rloo and group need them."""
RUNGS: dict[str, dict[str, Any]] = {
    "trajectory": {"advantage": "trajectory"},
    "reward_to_go": {"advantage": "reward_to_go"},
    "baseline": {"advantage": "baseline", "value_coef": 0.0},
    "gae, lambda 0.95": {"advantage": "gae", "gae_lambda": 0.95, "value_coef": 0.0},
    "gae, lambda 0": {"advantage": "gae", "gae_lambda": 0.0, "value_coef": 0.0},
    "rloo": {"advantage": "rloo"},
    "group": {"advantage": "group"},
}
"""What each rung writes into the config; without the value loss, for the gradient is to be the policy's alone."""
REFERENCE = "rloo"
"""Whose gradient of the other minibatches the rungs are compared with: unbiased, whatever the critic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large the experiment is."""

    warmup_steps: int
    warmup_batch: int
    """Episodes of a PPO step of the warm-up."""
    num_minibatches: int
    prompts_each: int
    """Prompts of a minibatch, with `SAMPLES` responses each."""
    max_new_tokens: int
    num_layers: int
    """Blocks whose gradient is measured."""
    at_most: int
    """Characters of a response that cost nothing."""

    @property
    def episodes_each(self) -> int:
        """Episodes of a minibatch."""
        return self.prompts_each * SAMPLES


FULL = Sizes(
    warmup_steps=6,
    warmup_batch=64,
    num_minibatches=32,
    prompts_each=2,
    max_new_tokens=16,
    num_layers=1,
    at_most=40,
)
QUICK = Sizes(
    warmup_steps=1,
    warmup_batch=8,
    num_minibatches=8,
    prompts_each=1,
    max_new_tokens=6,
    num_layers=1,
    at_most=0,
)


def run(settings: Settings) -> Section:
    """Warm a policy and its critic up, collect one batch, and measure every rung's gradients on it."""
    sizes = QUICK if settings.quick else FULL
    with TemporaryDirectory() as directory:
        parts = warmed_up(settings, sizes, Path(directory))
    try:
        batch, measured = measure(parts, sizes, settings.seed)
    finally:
        parts.trainer.collector.scorer.close()
    figures = figures_of(measured, settings.seed)
    return Section(
        name="gradient_noise",
        title="How much the gradients scatter on a language model",
        statement="Each rung of the ladder has the same gradient in expectation, or nearly, and scatters less than the "
        "one below: rewards that came before a token are noise, a baseline takes off what was to be expected, the "
        "bootstrap trades some bias for less variance, and the other responses to a prompt are a baseline for nothing.",
        formula="signal to noise = |G|^2 / tr(Sigma),   G = E[g],   Sigma = Cov[g],   g the gradient of a minibatch",
        method=method(settings, sizes, batch),
        tables=[table(figures, sizes.episodes_each)],
        figures=painted(measured, figures, sizes.episodes_each, settings.seed),
        finding=finding(figures, batch, settings.seed),
    )


def method(settings: Settings, sizes: Sizes, batch: Batch) -> str:
    """Say what is measured, and what was decided before."""
    return (
        f"{settings.model} after a warm-up of {sizes.warmup_steps} PPO steps of {sizes.warmup_batch} episodes (GAE "
        "0.95, whitened, KL coefficient 0.05), which gives the critic something to know and takes the policy away from "
        f"its reference. Then one fresh batch: {batch.num_episodes} episodes, {SAMPLES} from each prompt, "
        f"{batch.num_tokens} response tokens of at most {sizes.max_new_tokens} each; prompts are beginnings of film "
        f"reviews, the score of a response is minus a tenth of its characters beyond {sizes.at_most}: mean "
        f"{batch.score:.2f}, standard deviation {batch.score_std:.2f}; KL {batch.kl:.2f} nats a sequence; the critic, "
        f"a linear value head, explains {batch.explained_variance:.0%} of the variance of these returns. Every rung is "
        "the stage's own loss with `objective: policy_gradient` and without whitening, in float32, on the same batch; "
        "its gradient over the "
        f"last {sizes.num_layers} block(s) and the final norm ({batch.num_weights / 1e6:.1f} million numbers) is taken "
        f"for {sizes.num_minibatches} minibatches of {sizes.episodes_each} episodes, whole prompts each, all divided "
        "by the same number of tokens. |G|^2 is the mean inner product of two different minibatches, tr(Sigma) the "
        "mean squared length less that: the unbiased form of the noise scale of McCandlish et al. 2018 "
        "(arXiv:1812.06162, appendix A.1), whose inverse the ratio is; it is proportional to the episodes of a "
        "minibatch. Cosines are between disjoint parts of the batch, but for the last column. Intervals: 95 %, "
        "bootstrap over minibatches, the same resamples for every rung. The other direction is that of "
        f"{REFERENCE}: unbiased, whatever the critic. One batch of one policy. The reward was chosen after a first "
        "trial with the sentiment of 20 tokens (VADER) on a batch as large, where no rung but GAE with lambda 0 had a "
        "ratio above 0 that exceeded its interval."
    )


def ppo_settings(settings: Settings, sizes: Sizes, directory: Path) -> dict[str, Any]:
    """Return the configuration of the warm-up, less the keys of the critic."""
    return {
        "output_dir": str(directory),
        "seed": settings.seed,
        # Gradients are compared: bfloat16 would add scatter of its own.
        "model": {"path": settings.model, "trainable_layers": sizes.num_layers, "precision": "float32"},
        "prompts": {"path": str(directory / "prompts.jsonl")},
        "rewards": [{"kind": "length", "unit": "characters", "at_most": sizes.at_most, "weight": 0.1}],
        "sampling": {"max_new_tokens": sizes.max_new_tokens},
        "optimizer": {"learning_rate": 1e-4, "schedule": "constant"},
        "steps": sizes.warmup_steps,
        "rollout_batch_size": sizes.warmup_batch,
        "num_samples_per_prompt": SAMPLES,
        # Many small updates: the critic is to know something, the policy to move a little.
        "minibatches": sizes.warmup_batch // 8,
        "epochs": 2,
        "kl_coef": 0.05,
    }


def warmed_up(settings: Settings, sizes: Sizes, directory: Path) -> Parts:
    """Return a PPO run after its warm-up: the critic knows something, and the policy has left its reference."""
    write_rows(directory / "prompts.jsonl", opener_rows())
    critic = {"value_optimizer": {"learning_rate": 5e-3, "schedule": "constant"}, "value_clip_range": None}
    parts = assembled({**ppo_settings(settings, sizes, directory), **critic})
    steps = PPOSteps(parts.trainer, ListedPrompts(parts.prompts, parts.trainer.config), directory / "samples")
    for index in range(sizes.warmup_steps):
        steps.step(index)
    return parts


def measure(parts: Parts, sizes: Sizes, seed: int) -> tuple[Batch, dict[str, Measured]]:
    """Collect one batch and return what is known of it, and the inner products of every rung's gradients."""
    trainer = parts.trainer
    collected = collect(parts, sizes, seed)
    minibatches = list(torch.arange(len(collected.episodes)).split(sizes.episodes_each))
    frozen = [frozen_states(trainer, collected, rows) for rows in minibatches]
    experiences: dict[str, Experience] = {}

    def gradients(name: str) -> Tensor:
        stage = on_rung(trainer, RUNGS[name])
        coef = trainer.config.kl_coef
        experiences[name] = make_experience(collected.rollout, coef, stage.config, trainer.processes)
        return minibatch_gradients(stage, experiences[name], minibatches, frozen)

    reference = gradients(REFERENCE)
    own = inner_products(reference, reference)
    measured: dict[str, Measured] = {}
    for name in RUNGS:
        ours = reference if name == REFERENCE else gradients(name)
        measured[name] = Measured(gram=inner_products(ours, ours), cross=inner_products(ours, reference), reference=own)
        del ours  # a gigabyte, before the next one is made
    return described(collected, experiences, reference.shape[1]), measured


def collect(parts: Parts, sizes: Sizes, seed: int) -> Collected:
    """Sample the batch: different prompts, in random order, `SAMPLES` responses to each."""
    trainer, numbers = parts.trainer, generator(seed, "lab", "gradient_noise")
    order = torch.randperm(len(parts.prompts), generator=numbers)[: sizes.num_minibatches * sizes.prompts_each]
    prompts = [parts.prompts[place] for place in order.tolist()]
    pad_id, device = int(trainer.collector.tokenizer.pad_token_id), trainer.processes.device
    starts = draw_start_states(prompts, pad_id, device, num_samples=SAMPLES)
    return trainer.collector.collect(starts, numbers)


def on_rung(trainer: PPO, changes: dict[str, Any]) -> PPO:
    """Return the same models under a configuration that differs in the rung, with the plain policy gradient as loss."""
    critic = ("value_optimizer", "value_clip_range")
    given = trainer.config.model_dump(exclude_unset=True, exclude=set(critic))
    given |= {"objective": "policy_gradient", "whiten_advantages": False, **changes}
    config = PPOConfig.model_validate(given)
    return PPO(trainer.policy, trainer.collector, trainer.optimizer, config, trainer.processes, trainer.generators)


@torch.no_grad()
def frozen_states(trainer: PPO, collected: Collected, rows: Tensor) -> Tensor | None:
    """Return what enters the first trained block for these rows: the same for every rung."""
    batch = collected.rollout.rows(rows)
    sequences = join(batch.prompt_ids, batch.prompt_mask, batch.response_ids, batch.response_mask, batch.forced)
    return trainer.policy.frozen_states(sequences)


def minibatch_gradients(
    stage: PPO, experience: Experience, minibatches: Sequence[Tensor], frozen: Sequence[Tensor | None]
) -> Tensor:
    """Return [M, D] the gradient of the stage's own loss over the trained weights of the language model.

    All minibatches are divided by the same number of tokens, so that their mean is the gradient of the whole batch.
    """
    weights = [weight for weight in stage.policy.lm.parameters() if weight.requires_grad]
    num_tokens = float(experience.rollout.response_mask.sum()) / len(minibatches)
    gradients = torch.empty(len(minibatches), sum(weight.numel() for weight in weights))
    for place, (rows, known) in enumerate(zip(minibatches, frozen, strict=True)):
        loss, _, _ = stage.loss(experience.rows(rows), num_tokens, known)
        parts = torch.autograd.grad(loss, weights)
        gradients[place] = torch.cat([part.flatten() for part in parts])
    return gradients


def described(collected: Collected, experiences: dict[str, Experience], num_weights: int) -> Batch:
    """Return what the page says about the batch."""
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
