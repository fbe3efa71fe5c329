"""PPO steps as the loop runs them: which prompts, what is logged, what a checkpoint holds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.data.records import Prompt
from rlhf.ppo.correction import correction_metrics
from rlhf.ppo.run.ahead import ahead_of
from rlhf.ppo.run.cost import step_cost
from rlhf.ppo.run.prompt_source import PromptSource
from rlhf.ppo.run.report import step_metrics, write_samples
from rlhf.ppo.run.step_warnings import StepWarnings
from rlhf.ppo.run.traces import Tracer
from rlhf.ppo.starts.report import reset_metrics
from rlhf.ppo.step_records import StepResult
from rlhf.ppo.trainer import PPO
from rlhf.training.protocol import NothingLeft
from rlhf.training.randomness import (
    GLOBAL_GENERATORS,
    generator_state,
    global_rng_state,
    gpu_generators,
    restore,
    restore_global_rng_state,
)
from rlhf.training.storage.checkpoint import Checkpoint
from rlhf.training.storage.schema import Form, Schema, TensorForm
from rlhf.training.telemetry.last_step import LastStep
from rlhf.training.telemetry.profile import NO_PROFILE, Profile

SHOWN = (
    *("objective/scores", "objective/kl", "val/share_ended"),
    *("policy/clipfrac_avg", "val/explained_variance", "evaluation/scores"),
)
"""What the progress display shows."""


class PPOSteps:
    """Feeds prompts to the trainer and records what it did."""

    def __init__(
        self,
        trainer: PPO,
        source: PromptSource,
        samples: Path,
        *,
        evaluation: Callable[[], dict[str, float]] = dict,
        profile: Profile = NO_PROFILE,
    ) -> None:
        """Describe the steps.

        Args:
            trainer: runs them.
            source: gives the prompts of all processes; each takes its share.
            samples: directory for samples of the policy.
            evaluation: measures on held-out data.
            profile: gets the operations of each step.
        """
        self.trainer = trainer
        self.source = source
        self.samples = samples
        self.profile = profile
        self._evaluation = evaluation
        self._cost = step_cost(trainer) if profile.enabled else None
        self._last = LastStep()
        self._warnings = StepWarnings()
        self._ahead = ahead_of(trainer)
        self._tracer = Tracer(trainer.collector.tokenizer, trainer.config)

    def step(self, index: int) -> dict[str, float]:
        """Do PPO step `index` and return its metrics.

        Raises:
            NothingLeft: some process has no prompts left.
        """
        trainer, config = self.trainer, self.trainer.config
        prompts = self.source.batch(index)
        if trainer.processes.any(prompts is None) or prompts is None:
            raise NothingLeft
        result, late = self._step(index, prompts[trainer.processes.rank :: trainer.processes.num])
        if self._cost is not None:
            self.profile.add(*self._cost.of(result))
        done, samples = index + 1, []
        is_due = done % config.samples_every == 0 or done in (1, config.steps)
        if trainer.processes.is_main and is_due:
            path = self.samples / f"step-{done:06d}.jsonl"
            samples = write_samples(result, path, config.num_samples, self._tracer)
        metrics = all_metrics(trainer, result) | late
        self._last = LastStep(tokens=_tokens(result) * trainer.processes.num, samples=samples)
        for warning in self._warnings.warnings(metrics):
            trainer.processes.say(warning)
        return metrics

    def _step(self, index: int, prompts: Sequence[Prompt]) -> tuple[StepResult, dict[str, float]]:
        """Do a PPO step on the prompts of this process; the second result says how late its responses were."""
        trainer = self.trainer
        if self._ahead is None:
            return trainer.step(prompts), {}
        sampled = self._ahead.take()
        is_late = sampled is not None
        sampled = sampled or trainer.rollout(prompts)
        following = self.source.batch(index + 1) if index + 1 < trainer.config.steps else None
        if following is not None:  # one process: a server serves no more
            self._ahead.begin(index + 1, following, has_weights=not is_late)
        return trainer.learn_from(sampled), {"sampling/steps_late": float(is_late)}

    def close(self) -> None:
        """Stop what goes on in the background; a further step begins anew."""
        if self._ahead is not None:
            self._ahead.drop()

    def last(self) -> LastStep:
        """Return what the last step went through."""
        return self._last

    def evaluate(self) -> dict[str, float]:
        """Return what the evaluation measured on held-out prompts; empty where there are none."""
        return self._evaluation()

    def saved(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return masters, moments, generators, the KL coefficient, the running scales and the state of resets.

        The global generators are included, since a user's reward may draw from them.
        """
        trainer = self.trainer
        own = {"rollout": generator_state(trainer.generators.rollout), **global_rng_state()}
        if trainer.resets is not None:
            own["resets"] = generator_state(trainer.resets.generator)
        everyone = trainer.processes.gathered([own])
        generators = {f"{name}_{rank}": state for rank, states in enumerate(everyone) for name, state in states.items()}
        generators["epochs"] = generator_state(trainer.generators.epochs)
        tensors = {
            "masters": trainer.optimizer.weights.saved(),
            "optimizer": trainer.optimizer.tensors(),
            "generators": generators,
        }
        state = {"kl_coef": trainer.kl_control.coef, **trainer.collector.scorer.state()}
        return tensors, state if trainer.resets is None else {**state, "resets": trainer.resets.state()}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore what `saved` returned.

        Raises:
            CheckpointError: the checkpoint is not one of this run.
        """
        trainer = self.trainer
        self.close()
        tensors, state = checkpoint.read(self._schema())
        trainer.optimizer.weights.load(tensors["masters"])
        trainer.num_steps = checkpoint.step
        trainer.optimizer.load(tensors["optimizer"], 0)  # each PPO step sets the count of updates
        generators = tensors["generators"]
        restore(trainer.generators.epochs, generators.pop("epochs"))
        ending = f"_{trainer.processes.rank}"
        own = {name.removesuffix(ending): state for name, state in generators.items() if name.endswith(ending)}
        restore(trainer.generators.rollout, own.pop("rollout"))
        if trainer.resets is not None:
            restore(trainer.resets.generator, own.pop("resets"))
            trainer.resets.load(state["resets"])
        restore_global_rng_state(own)
        trainer.kl_control.coef = float(state["kl_coef"])
        trainer.collector.scorer.load(state)

    def take_weights(self, checkpoint: Checkpoint) -> None:
        """Set the masters alone."""
        self.trainer.optimizer.weights.load(checkpoint.tensors("masters"))

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the learning rates of all further steps by `factor`."""
        self.trainer.optimizer.scale = factor

    def _schema(self) -> Schema:
        """Return what a checkpoint of this run holds."""
        trainer = self.trainer
        names = [*GLOBAL_GENERATORS, "rollout", *([] if trainer.resets is None else ["resets"])]
        ranks = range(trainer.processes.num)
        generators = [f"{name}_{rank}" for rank in ranks for name in [*names, *gpu_generators()]]
        tensors = {
            "masters": trainer.optimizer.weights.forms(),
            "optimizer": trainer.optimizer.forms(),
            "generators": dict.fromkeys([*generators, "epochs"], TensorForm((None,), torch.uint8)),
        }
        state: dict[str, Form] = {"kl_coef": float, **trainer.collector.scorer.form()}
        return Schema(tensors, state if trainer.resets is None else {**state, "resets": trainer.resets.form()})


def _tokens(result: StepResult) -> int:
    """Return the real tokens of a step on this process, prompts and responses."""
    rollout = result.experience.rollout
    return int(rollout.prompt_mask.sum() + (rollout.response_mask | rollout.forced).sum())


def all_metrics(trainer: PPO, result: StepResult) -> dict[str, float]:
    """Return everything that is logged about the trainer's last step; all processes call this together."""
    metrics = step_metrics(result, trainer.processes, has_critic=trainer.config.has_critic)
    if trainer.resets is not None:
        metrics |= reset_metrics(result, trainer.processes)
    weighed = result.experience.rollout.response_mask
    metrics |= correction_metrics(result.correction, weighed, trainer.processes)
    episode = float(trainer.num_steps * trainer.config.rollout_batch_size)
    return {"episode": episode, **metrics, **result.collected.reward_metrics}
