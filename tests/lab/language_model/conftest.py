"""What the tests of the lab share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny(workshop: Path) -> str:
    """The directory of a tiny random policy."""
    return str(workshop / "policy")
