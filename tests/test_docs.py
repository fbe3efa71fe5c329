"""The pages under docs/ name what exists."""

import importlib
import re
from pathlib import Path

import pytest

NAMED = re.compile(r"`((?:functional|lab|oracle|ppo)(?:\.\w+)+)`")


def resolved(name: str) -> object:
    """Import as much of the dotted name as is a module, and look the rest up."""
    parts = ["rlhf", *name.split(".")]
    for end in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[end:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


def test_every_function_that_the_walk_through_policy_gradients_names_exists(root: Path) -> None:
    names = set(NAMED.findall((root / "docs/policy-gradients.md").read_text(encoding="utf-8")))
    assert len(names) > 25
    for name in sorted(names):
        resolved(name)
    with pytest.raises(AttributeError):
        resolved("functional.advantages.no_such_rung")


def test_every_file_that_the_walk_names_exists(root: Path) -> None:
    text = (root / "docs/policy-gradients.md").read_text(encoding="utf-8")
    files = re.findall(r"`((?:tests|docs|rlhf)/[\w/.-]+)`", text)
    assert files and all((root / path).is_file() for path in files)


def test_every_figure_that_the_walk_shows_exists(root: Path) -> None:
    text = (root / "docs/policy-gradients.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^]]*\]\((figures/[\w.]+)\)", text)
    committed = {f"figures/{path.name}" for path in (root / "docs/figures").iterdir()}
    assert shown and set(shown) == committed
