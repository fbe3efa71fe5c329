"""Tests of rlhf.config.reading.keys."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from rlhf.config import GenerateConfig, PPOConfig
from rlhf.config.reading.keys import keys_of, section_keys
from rlhf.config.reading.loader import load_config


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Kl(BaseModel):
    coef: float = Field(0.05, ge=0, description="weight, per nat")


class ByFunction(BaseModel):
    kind: Literal["function"]
    path: str


class ByModel(BaseModel):
    kind: Literal["model"]
    weight: float = 1.0


class Recipe(BaseModel):
    steps: int = Field(ge=1, lt=9)
    rate: Annotated[float, Field(gt=0)] | None = None
    out: Path = Path("runs")
    auto: int | Literal["auto"] = "auto"
    colour: Colour = Colour.RED
    betas: tuple[float, float] = (0.9, 0.95)
    names: list[str] = Field(default_factory=lambda: ["a"], min_length=1)
    columns: dict[str, str] = {}
    kl: Kl = Kl(coef=0.2)
    critic: Kl | None = None
    rewards: list[Annotated[ByFunction | ByModel, Field(discriminator="kind")]] = []


KEYS = {key.path: key for key in keys_of(Recipe)}


@pytest.mark.parametrize(
    ("path", "type_name"),
    [
        ("steps", "integer >= 1 and < 9"),
        ("rate", "number > 0 or null"),
        ("out", "path"),
        ("auto", "integer or 'auto'"),
        ("colour", "'red' | 'blue'"),
        ("betas", "[number, number]"),
        ("names", "list of text, not empty"),
        ("columns", "mapping of text to text"),
        ("kl", "section"),
        ("critic", "section or null"),
        ("rewards", "list of section"),
        ("kl.coef", "number >= 0"),
        ("critic.coef", "number >= 0"),
    ],
)
def test_types_and_ranges_are_named_in_words(path: str, type_name: str) -> None:
    assert KEYS[path].type_name == type_name


def test_keys_come_in_the_order_of_the_fields_with_each_section_before_its_own() -> None:
    assert list(KEYS)[-8:] == [
        "kl",
        "kl.coef",
        "critic",
        "critic.coef",
        "rewards",
        "rewards.N.kind",
        "rewards.N.path",
        "rewards.N.weight",
    ]
    assert len(KEYS) == len(keys_of(Recipe))


def test_a_key_has_the_default_that_its_section_gives_it() -> None:
    assert KEYS["kl.coef"].default == 0.2
    assert KEYS["critic.coef"].default == 0.05
    assert KEYS["names"].default == ["a"]


def test_a_key_without_default_is_required() -> None:
    assert {path for path, key in KEYS.items() if key.required} == {"steps", "rewards.N.kind", "rewards.N.path"}


def test_a_key_that_kinds_of_section_share_has_the_types_and_meanings_of_all() -> None:
    keys = {key.path: key for key in keys_of(PPOConfig)}
    kinds = "'function' | 'model' | 'ensemble' | 'http' | 'length' | 'repetition' | 'regex' | 'lexicon'"
    assert keys["rewards.N.kind"].type_name == kinds
    assert keys["rewards.N.deadline"].type_name == "number > 0 or null"
    assert "py:name" in keys["rewards.N.path"].description
    assert "reward model" in keys["rewards.N.path"].description
    assert keys["rewards.N.weight"].description == "factor of this reward in the score"


def test_sections_at_the_top_are_found() -> None:
    assert section_keys(Recipe) == ["kl", "critic"]


@pytest.mark.parametrize("in_a_file", [True, False])
def test_the_short_form_of_a_section_is_no_file(in_a_file, tmp_path) -> None:
    (tmp_path / "generate.yaml").write_text("model: m\n" + "decoding: model\n" * in_a_file)
    config = load_config(GenerateConfig, tmp_path / "generate.yaml", [] if in_a_file else ["decoding=model"])
    assert config.decoding.filters == "model"


class Choice(BaseModel):
    how: Annotated[ByFunction | ByModel, Field(discriminator="kind")] = ByModel(kind="model", weight=3.0)


def test_a_section_of_several_kinds_lists_each_key_once_with_the_types_of_all() -> None:
    keys = keys_of(Choice)
    assert [key.path for key in keys] == ["how", "how.kind", "how.path", "how.weight"]
    assert keys[1].type_name == "'function' | 'model'"
    assert keys[3].default == 3.0
