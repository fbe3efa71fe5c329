"""Rewards that are Python code: written to files, loaded, and forgotten again; and an episode to score."""

import sys
import textwrap
from collections.abc import Callable

import pytest

from rlhf.rewards.protocol import Episode


@pytest.fixture
def unchanged_imports(monkeypatch):
    """What a test imports is gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("rlhf_reward_", "package_of_test", "beside_the_reward")):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path):
    """Write a file of Python and return "file:name"."""

    def write_file(code, name="score", file="my_rewards.py"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(code), encoding="utf-8")
        return f"{path}:{name}"

    return write_file


@pytest.fixture
def episode() -> Callable[..., Episode]:
    """`episode("How?", "So.", answer=1)`, with a column."""

    def make(prompt="How?", completion="So.", **columns):
        return Episode(prompt=prompt, completion=completion, columns=columns, prompt_ids=(5, 6), response_ids=(7, 8, 2))

    return make
