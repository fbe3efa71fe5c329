"""Supervised steps that SFT and the reward model share: a global batch, its microbatches, one update."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlhf.errors import GuardStop
from rlhf.training.batch_plan import BatchPlan
from rlhf.training.optimizer import Optimizer
from rlhf.training.processes import Processes
from rlhf.training.randomness import generator
from rlhf.training.storage.checkpoint import Checkpoint
from rlhf.training.storage.schema import Schema
from rlhf.training.telemetry.last_step import LastStep
from rlhf.training.telemetry.profile import NO_PROFILE, Profile


class Objective(Protocol):
    """A loss over items of a data set that adds up over microbatches."""

    statistics: tuple[str, ...]
    """Names of what `loss` returns besides the loss."""

    def lengths(self) -> Sequence[int]:
        """Return the tokens that each item costs."""

    @property
    def packs(self) -> bool:
        """Whether the model computes nothing for padding."""

    def weight(self, items: Sequence[int]) -> float:
        """Return the weight of these items in a mean: their tokens, or pairs."""

    def loss(self, items: Sequence[int], total_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the items' share of the global mean loss, and sums of statistics over them, unread."""

    def cost(self, items: Sequence[int]) -> tuple[int, dict[str, float]]:
        """Return the items' real tokens, and the floating-point operations of `forward` and `backward`."""


class SupervisedSteps:
    """Steps of a stage that minimises an objective; the loss is the mean over the global batch."""

    def __init__(
        self,
        objective: Objective,
        plan: BatchPlan,
        optimizer: Optimizer,
        processes: Processes,
        heldout: Callable[[], dict[str, float]],
        profile: Profile = NO_PROFILE,
    ) -> None:
        """Put the parts together; `heldout` returns the metrics of held-out data, empty when there are none."""
        self.objective = objective
        self.plan = plan
        self.optimizer = optimizer
        self.processes = processes
        self.profile = profile
        self._heldout = heldout
        self._last = LastStep()

    def step(self, index: int) -> dict[str, float]:
        """Do optimizer step `index` on its global batch.

        Raises:
            GuardStop: the loss or a gradient is not finite; no weight has changed.
        """
        phases, items = self.profile.phases, self.plan.batch(index)
        total = self.objective.weight(items)
        numbers = []
        switch_dropout(self.optimizer.weights.module, on=True)
        cut = list(enumerate(self.plan.microbatches(items)))
        own = cut[self.processes.rank :: self.processes.num]
        sharding, module = self.processes.sharding, self.optimizer.weights.module
        for (place, microbatch), counts in sharding.equalised(own, cut[0]):
            # Step and microbatch determine the dropout, so neither resuming nor the number of processes changes it.
            torch.manual_seed(generator(self.plan.seed, "dropout", index, place).initial_seed())
            with phases("forward"):
                loss, statistics = sharding.inside(module, partial(self.objective.loss, microbatch, total))
            with phases("backward"):
                (loss if counts else loss * 0.0).backward()
            if counts:
                numbers.append(torch.stack([each.detach().float() for each in (loss, *statistics.values())]))
        norms = self.optimizer.gradient_norms()
        # One look at the device for a whole step: it computes while the host prepares the next microbatch.
        read = torch.cat([*numbers, norms]).tolist()
        width = 1 + len(self.objective.statistics)
        local = [sum(read[place : width * len(own) : width]) for place in range(width)]
        loss_sum, *rest = self.processes.sums(local)
        if not abs(loss_sum) < float("inf"):
            raise GuardStop(
                f"loss is {loss_sum} at update {index} - no step was taken; lower the learning rate or look at the data"
            )
        with phases("optimizer"):
            report = self.optimizer.step(norms, read[width * len(own) :])
        if self.profile.enabled:
            self.profile.add(*self.objective.cost([item for _, microbatch in own for item in microbatch]))
        self._last = LastStep(tokens=self.plan.num_tokens(items))
        means = {name: value / total for name, value in zip(self.objective.statistics, rest, strict=True)}
        return {"loss": loss_sum, "epoch": self.plan.epoch(index + 1), "weight": total, **means, **report}

    def last(self) -> LastStep:
        """Return what the last step went through."""
        return self._last

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of held-out data, without dropout."""
        switch_dropout(self.optimizer.weights.module, on=False)
        return self._heldout()

    def saved(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Return masters, moments and the number of updates; the step alone determines the data order."""
        masters = self.optimizer.weights.saved()
        return {"masters": masters, "optimizer": self.optimizer.tensors()}, {"num_updates": self.optimizer.num_done}

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set masters, moments and the number of updates.

        Raises:
            CheckpointError: the checkpoint is not one of this model; nothing was set.
        """
        schema = Schema(
            {"masters": self.optimizer.weights.forms(), "optimizer": self.optimizer.forms()}, {"num_updates": int}
        )
        tensors, state = checkpoint.read(schema)
        self.optimizer.weights.load(tensors["masters"])
        self.optimizer.load(tensors["optimizer"], state["num_updates"])

    def take_weights(self, checkpoint: Checkpoint) -> None:
        """Set the masters alone."""
        self.optimizer.weights.load(checkpoint.tensors("masters"))

    def scale_learning_rates(self, factor: float) -> None:
        """Multiply the learning rates of all further updates by `factor`."""
        self.optimizer.scale = factor


def switch_dropout(module: nn.Module, *, on: bool) -> None:
    """Switch the dropout of adapters; that of a loaded model is 0 in either mode."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.train(on)
