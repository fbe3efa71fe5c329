"""An emulated GPU, on which runs of the tests compute."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.training.processes import Processes

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def emulation(module: Callable[[Path], ModuleType]) -> ModuleType:
    """The module `emulator.py`."""
    return module(HERE / "emulator.py")


@pytest.fixture
def captures(module: Callable[[Path], ModuleType], root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The steps of decoding that CUDA would capture, which are recorded and repeated in its place."""
    found = module(root / "tests/sampling/recorded_graph.py").Captures()
    monkeypatch.setattr("rlhf.sampling.graphs.capture", found)
    return found


@pytest.fixture
def gpu(emulation: ModuleType, captures: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An emulated GPU, which processes use for the length of a test."""
    monkeypatch.setattr(Processes, "device", property(lambda self: emulation.GPU))
    # The clipping of gradients groups them by device in C++, which knows the CPU alone.
    monkeypatch.setattr(torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", emulation.grouped)
    # What asks the driver has no answer here.
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: 0)
    emulator = emulation.Emulator()
    with emulator():
        yield emulator
