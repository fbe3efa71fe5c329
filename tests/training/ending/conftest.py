from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def planned(module):
    """Steps that go as planned: `planned.run(path, planned.Planned(scores=...), rules)`."""
    return module(Path(__file__).with_name("planned.py"))
