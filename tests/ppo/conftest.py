"""A PPO run that a signal stops."""

import os
import signal
from collections.abc import Callable

import pytest

from rlhf.config import PPOConfig
from rlhf.errors import Terminated
from rlhf.ppo import train_ppo
from rlhf.ppo.steps import PPOSteps


@pytest.fixture
def stopped_after_two_steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[PPOConfig], None]:
    """A function that trains until a signal comes in the second step, and sees the run stop after it."""
    step = PPOSteps.step

    def signalled(self: PPOSteps, index: int) -> dict[str, float]:
        metrics = step(self, index)
        if index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return metrics

    def run(config: PPOConfig) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(PPOSteps, "step", signalled)
            with pytest.raises(Terminated, match="after step 2"):
                train_ppo(config)

    return run
