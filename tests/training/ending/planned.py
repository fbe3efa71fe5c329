"""Steps that go as a test plans them, and the loop around them."""

import torch

from rlhf.errors import GuardStop
from rlhf.training.loop import Loop
from rlhf.training.processes import Processes
from rlhf.training.protocol import LoopSettings
from rlhf.training.storage.run_directory import RunDirectory


class Planned:
    """Steps whose state is a number that grows by the learning rate; metrics and failures are planned."""

    def __init__(self, scores=(), kl=(), bad=lambda index, tries, scale: False, crash_at=None):
        self.number = 0.0
        self.scale = 1.0
        self.started = []
        self.scores, self.kl, self.bad, self.crash_at = scores, kl, bad, crash_at
        self._done = 0

    def step(self, index):
        if index == self.crash_at:
            raise RuntimeError("power cut")
        self.number = self.number * 1.5 + self.scale
        self.started.append(index)
        if self.bad(index, self.started.count(index), self.scale):
            raise GuardStop("not finite: logprobs - no step was taken")
        self._done = index + 1
        return {"number": self.number, "kl": self.kl[index] if self.kl else 0.0, "lr": self.scale}

    def evaluate(self):
        return {"eval/score": float(self.scores[self._done - 1])} if self.scores else {}

    def saved(self):
        return {"masters": {"number": torch.tensor(self.number, dtype=torch.float64)}}, {}

    def restore(self, checkpoint):
        self.take_weights(checkpoint)

    def take_weights(self, checkpoint):
        self.number = float(checkpoint.tensors("masters")["number"])

    def scale_learning_rates(self, factor):
        self.scale = factor


def run(path, steps, rules, processes=None, **changes):
    """Run the steps to their end, from the newest checkpoint there is, and return them."""
    values = {"num_steps": 8, "log_every": 1, "checkpoint_every": 3, "checkpoints_kept": 1, "eval_every": 1}
    settings = LoopSettings(**(values | changes), description="test", shown=(), rules=rules)
    processes = processes or Processes()
    with RunDirectory(path, fingerprint="x", is_main=processes.is_main) as directory:
        loop = Loop(steps, settings, directory, processes, config={}, fingerprint={})
        loop.run(loop.resume())
    return steps


def numbers(steps, scales):
    """The number after steps with these learning rates."""
    number = 0.0
    for scale in scales[:steps]:
        number = number * 1.5 + scale
    return number


def checkpoints(path):
    """The steps whose checkpoints are there."""
    return sorted(int(place.name.removeprefix("step-")) for place in (path / "checkpoints").iterdir())
