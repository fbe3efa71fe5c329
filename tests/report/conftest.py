"""Runs written by hand, for every test of the report."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def planting(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `planting.py`."""
    return module(Path(__file__).with_name("planting.py"))
