"""The laboratory of the PPO tests, as fixtures."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def lab() -> ModuleType:
    """The module `laboratory.py`."""
    spec = importlib.util.spec_from_file_location("ppo_laboratory", Path(__file__).with_name("laboratory.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def workshop(lab: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny policy, a tiny reward model, eight prompts and reward functions."""
    return lab.build_workshop(tmp_path_factory.mktemp("workshop"))
