"""What the tests of experiments on a language model share."""

from pathlib import Path

import pytest
import torch

from rlhf.lab.language_model.gradient_batch import QUICK, collect, warmed_up
from rlhf.lab.section import Settings
from rlhf.ppo.rollout import Collected
from rlhf.ppo.run.assembly import PPORun


@pytest.fixture(scope="session")
def policy(workshop: Path) -> str:
    """The directory of a tiny random policy."""
    return str(workshop / "policy")


@pytest.fixture(scope="session")
def parts(policy: str, tmp_path_factory: pytest.TempPathFactory) -> PPORun:
    """The warmed-up run whose gradients are compared; no test may move it."""
    directory = tmp_path_factory.mktemp("noise")
    made = warmed_up(Settings(model=policy, quick=True), QUICK, directory)
    with torch.no_grad():  # a critic with something to say, or baseline would be reward_to_go
        made.trainer.policy.value_head.linear.weight.normal_(generator=torch.Generator().manual_seed(0))
    return made


@pytest.fixture(scope="session")
def collected(parts: PPORun) -> Collected:
    """The batch that it samples."""
    return collect(parts, QUICK, 0)
