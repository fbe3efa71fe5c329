from pathlib import Path

import pytest

from rlhf.config import RunConfig
from rlhf.config.reading.loader import load_config


@pytest.fixture
def recipe(in_the_repository, tmp_path):
    """`recipe("ppo.steps=2")` is the recipe configs/smoke in a directory of the test's own."""

    def make(*overrides):
        return load_config(RunConfig, Path("configs/smoke/run.yaml"), [f"output_dir={tmp_path}/run", *overrides])

    return make
