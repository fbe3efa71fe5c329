"""What rlhf promises when something goes wrong, and the tests that hold it; faults.toml and checks.toml."""

import tomllib
from pathlib import Path
from typing import NamedTuple


class Promise(NamedTuple):
    """What happens when something goes wrong."""

    number: int
    fault: str
    """What goes wrong."""
    kept: str
    """What happens then; a number in brackets is the exit status."""
    tests: tuple[str, ...]
    """Tests as file below tests/ and name, `test_sft.py::test_it_learns`; all cases of a test count."""


def read(name: str) -> tuple[Promise, ...]:
    """Return the promises of a file beside this one, in its order."""
    sections = tomllib.loads(Path(__file__).with_name(name).read_text())
    return tuple(
        Promise(int(number), each["fault"], each["kept"], tuple(each["tests"])) for number, each in sections.items()
    )


FAULTS = read("faults.toml")
CHECKS = read("checks.toml")
