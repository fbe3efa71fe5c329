"""Experiment: how much each rung's gradient scatters on a language model, all rungs on the same collected batch."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from rlhf.batches import Experience, join
from rlhf.config import PPOConfig
from rlhf.lab.language_model.gradient_batch import FULL, QUICK, SAMPLES, Batch, Sizes, collect, summary, warmed_up
from rlhf.lab.language_model.gradient_report import InnerProducts, figures, finding, scatter_of, table
from rlhf.lab.language_model.gradient_statistics import inner_products
from rlhf.lab.section import Section, Settings
from rlhf.ppo.experience import make_experience
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import PPORun
from rlhf.ppo.trainer import PPO

RUNGS: dict[str, dict[str, Any]] = {
    "trajectory": {"advantage": "trajectory"},
    "reward_to_go": {"advantage": "reward_to_go"},
    "baseline": {"advantage": "baseline", "value_coef": 0.0},
    "gae, lambda 0.95": {"advantage": "gae", "gae_lambda": 0.95, "value_coef": 0.0},
    "gae, lambda 0": {"advantage": "gae", "gae_lambda": 0.0, "value_coef": 0.0},
    "rloo": {"advantage": "rloo"},
    "group": {"advantage": "group"},
}
"""Each rung's keys in the config; without the value loss, so that the gradient is the policy's alone."""
REFERENCE = "rloo"
"""The rung whose gradient of the other minibatches all rungs are compared with: unbiased, whatever the critic."""


def run(settings: Settings) -> Section:
    """Warm a policy and its critic up, collect one batch, and measure every rung's gradients on it."""
    sizes = QUICK if settings.quick else FULL
    with TemporaryDirectory() as directory:
        parts = warmed_up(settings, sizes, Path(directory))
    try:
        batch, measured = measure(parts, sizes, settings.seed)
    finally:
        parts.trainer.collector.scorer.close()
    scatter = scatter_of(measured, settings.seed)
    return Section(
        name="gradient_noise",
        title="How much the gradients scatter on a language model",
        statement="Each rung of the ladder has the same gradient in expectation, or nearly, and scatters less than the "
        "one below: rewards that came before a token are noise, a baseline removes what was expected, the "
        "bootstrap trades some bias for less variance, and the other responses to a prompt are a free baseline.",
        formula="signal to noise = |G|^2 / tr(Sigma),   G = E[g],   Sigma = Cov[g],   g the gradient of a minibatch",
        method=method(settings, sizes, batch),
        tables=[table(scatter, sizes.episodes_each)],
        figures=figures(measured, scatter, sizes.episodes_each, settings.seed),
        finding=finding(scatter, batch, settings.seed),
    )


def method(settings: Settings, sizes: Sizes, batch: Batch) -> str:
    """Say what is measured, and what was decided beforehand."""
    return (
        f"{settings.model} after a warm-up of {sizes.warmup_steps} PPO steps of {sizes.warmup_batch} episodes (GAE "
        "0.95, whitened, KL coefficient 0.05), which trains the critic and moves the policy away from "
        f"its reference. Then one fresh batch: {batch.num_episodes} episodes, {SAMPLES} from each prompt, "
        f"{batch.num_tokens} response tokens of at most {sizes.max_new_tokens} each; prompts are beginnings of film "
        f"reviews, the score of a response is minus a tenth of its characters beyond {sizes.at_most}: mean "
        f"{batch.score:.2f}, standard deviation {batch.score_std:.2f}; KL {batch.kl:.2f} nats per sequence; the "
        f"critic, a linear value head, explains {batch.explained_variance:.0%} of the returns' variance. Every rung is "
        "the stage's own loss with `objective: policy_gradient` and without whitening, in float32, on the same batch; "
        "its gradient over the "
        f"last {sizes.num_layers} block(s) and the final norm ({batch.num_weights / 1e6:.1f} million numbers) is taken "
        f"for {sizes.num_minibatches} minibatches of {sizes.episodes_each} episodes, whole prompts each, all divided "
        "by the same number of tokens. |G|^2 is the mean inner product of two different minibatches, tr(Sigma) the "
        "mean squared length minus that. The ratio is the inverse of the noise scale of McCandlish et al. 2018 "
        "(arXiv:1812.06162, appendix A.1) in its unbiased form; it is proportional to the episodes of a "
        "minibatch. Cosines are between disjoint parts of the batch, except in the last column. Intervals: 95 %, "
        "bootstrap over minibatches, the same resamples for every rung. The direction to compare with is that of "
        f"{REFERENCE}: unbiased, whatever the critic. One batch of one policy. The reward was chosen after a first "
        "trial with the sentiment of 20 tokens (VADER) on a batch of the same size, where only GAE with lambda 0 had "
        "a ratio whose interval lay above 0."
    )


def measure(parts: PPORun, sizes: Sizes, seed: int) -> tuple[Batch, dict[str, InnerProducts]]:
    """Collect one batch and return its summary, and the inner products of every rung's gradients."""
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
    measured: dict[str, InnerProducts] = {}
    for name in RUNGS:
        ours = reference if name == REFERENCE else gradients(name)
        measured[name] = InnerProducts(
            gram=inner_products(ours, ours), cross=inner_products(ours, reference), reference=own
        )
        del ours  # frees a gigabyte before the next one
    return summary(collected, experiences, reference.shape[1]), measured


def on_rung(trainer: PPO, changes: dict[str, Any]) -> PPO:
    """Return a trainer of the same models on another rung, with the plain policy gradient as loss."""
    critic = ("value_optimizer", "value_clip_range")
    given = trainer.config.model_dump(exclude_unset=True, exclude=set(critic))
    given |= {"objective": "policy_gradient", "whiten_advantages": False, **changes}
    config = PPOConfig.model_validate(given)
    return PPO(trainer.policy, trainer.collector, trainer.optimizer, config, trainer.processes, trainer.generators)


@torch.no_grad()
def frozen_states(trainer: PPO, collected: Collected, rows: Tensor) -> Tensor | None:
    """Return the input of the first trained block for these rows: the same for every rung."""
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
