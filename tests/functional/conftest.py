"""What the tests of losses share."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def padded(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `padded.py`."""
    return module(Path(__file__).with_name("padded.py"))
