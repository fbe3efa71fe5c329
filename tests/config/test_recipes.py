"""Every YAML file under configs/ is one that its verb takes."""

import re
from pathlib import Path

import pytest

from rlhf.cli import STAGES, verb_of
from rlhf.config.reading.loader import load_config, save_config

ROOT = Path(__file__).parents[2]
OTHER_PROGRAMS = ("accelerate", "schema")
"""Folders with files that are not ours to check."""
RECIPES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "configs").rglob("*.y*ml")
    if not set(path.relative_to(ROOT / "configs").parts) & set(OTHER_PROGRAMS)
)


def test_there_are_recipes() -> None:
    assert any(path.name == "run.yaml" for path in RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_a_recipe_is_valid_and_loads_back_equal_after_it_was_saved(
    path: Path, tmp_path: Path, in_the_repository: None
) -> None:
    model = STAGES[verb_of(path)].model
    config = load_config(model, path)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(model, tmp_path / "config.yaml") == config


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_an_editor_finds_the_schema_of_a_recipe(path: Path) -> None:
    first = (ROOT / path).read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    schema = (ROOT / path.parent / named[1]).resolve()
    assert schema == ROOT / "configs/schema" / f"{path.stem}.json" and schema.is_file()
