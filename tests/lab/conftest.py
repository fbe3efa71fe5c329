"""The laboratory of the PPO tests, with its tiny policy."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def ppo_lab() -> ModuleType:
    """The module `laboratory.py` of the PPO tests."""
    path = Path(__file__).parents[1] / "ppo" / "laboratory.py"
    spec = importlib.util.spec_from_file_location("ppo_laboratory", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny(ppo_lab: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The directory of a tiny random policy."""
    return str(ppo_lab.build_workshop(tmp_path_factory.mktemp("workshop")) / "policy")
