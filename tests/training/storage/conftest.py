"""A store of checkpoints, and what several test files do with one."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.training.storage.checkpoint import CheckpointStore


@pytest.fixture(scope="session")
def numbered(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `numbered.py`."""
    return module(Path(__file__).with_name("numbered.py"))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")
