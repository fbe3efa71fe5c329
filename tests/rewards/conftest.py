"""The chaos server of the tests, as fixtures."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def chaos(module: Callable[[Path], ModuleType]) -> Iterator[Callable]:
    """`chaos(answer(503), answer())` starts a server; its behaviours are functions of `chaos.py`."""
    servers = []

    def start(*behaviours):
        servers.append(module(Path(__file__).with_name("chaos.py")).Chaos(*behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
