"""The chaos server of the tests, as fixtures."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"rewards_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


chaos_module = _module("chaos")


@pytest.fixture
def chaos() -> Iterator[Callable]:
    """`chaos(answer(503), answer())` starts a server; its behaviours are functions of `chaos.py`."""
    servers = []

    def start(*behaviours):
        servers.append(chaos_module.Chaos(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
