from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FAKE = Path(__file__).parents[2] / "sampling/engines/fake_vllm.py"


@pytest.fixture
def fake(module: Callable[[Path], ModuleType], workshop: Path) -> Iterator[Any]:
    """A vLLM server that starts with the workshop's policy."""
    server = module(FAKE).FakeVLLM(str(workshop / "policy"))
    yield server
    server.gate.set()
    server.close()
