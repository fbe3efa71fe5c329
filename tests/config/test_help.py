"""Tests of rlhf.config.help."""

import pytest
from pydantic import BaseModel, Field

from rlhf.config.help import COMMON_KEYS, describe
from rlhf.config.reading.keys import keys_of
from rlhf.config.schema_files import SCHEMAS


class Kl(BaseModel):
    coef: float = Field(0.05, ge=0, description="weight of the penalty,\n  per nat")
    target: float | None = None


class Gold(BaseModel):
    train: str


class Recipe(BaseModel):
    steps: int = Field(ge=1, description="PPO steps")
    kl: Kl = Kl()
    names: list[str] = ["a"]
    gold: Gold | None = None


def test_every_key_has_its_type_range_default_and_meaning() -> None:
    assert describe(Recipe).splitlines() == [
        "steps: integer >= 1 (required)",
        "    PPO steps",
        "kl: section",
        "kl.coef: number >= 0 (default 0.05)",
        "    weight of the penalty, per nat",
        "kl.target: number or null (default null)",
        'names: list of text (default ["a"])',
        "gold: section or null (default null)",
        "gold.train: text (required if gold is given)",
    ]


def test_a_page_may_list_some_keys_in_an_order_of_its_own() -> None:
    page = describe(Recipe, only=("kl.target", "steps"))
    assert page == "kl.target: number or null (default null)\nsteps: integer >= 1 (required)\n    PPO steps"


def test_twelve_keys_of_each_schema_are_the_common_ones() -> None:
    assert COMMON_KEYS.keys() == SCHEMAS.keys()
    for name, common in COMMON_KEYS.items():
        paths = [key.path for key in keys_of(SCHEMAS[name])]
        assert len(set(common)) == 12 and set(common) <= set(paths), name


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_help_of_each_schema_fits_its_page_and_names_every_key(name: str) -> None:
    page = describe(SCHEMAS[name])
    for key in keys_of(SCHEMAS[name]):
        assert f"\n{key.path}: " in f"\n{page}"
    assert page.isascii()


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_key_of_each_schema_says_what_it_means(name: str) -> None:
    silent = [key.path for key in keys_of(SCHEMAS[name]) if not key.description]
    assert [path for path in silent if path.rpartition(".")[2] != "kind"] == [
        path for path in silent if _is_section(name, path)
    ]


def _is_section(name: str, path: str) -> bool:
    return next(key for key in keys_of(SCHEMAS[name]) if key.path == path).is_section
