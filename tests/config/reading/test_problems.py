"""Tests of rlhf.config.reading.problems."""

import pytest
from pydantic import BaseModel, ConfigDict, Field

from rlhf.config.reading.problems import near_keys


class Kl(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kl_coef: float = 0.1
    target: float = 6.0


class Item(BaseModel):
    weight: float = Field(1.0)


class Recipe(BaseModel):
    steps: int = 1
    clip_range: float = 0.2
    kl: Kl = Kl()
    critic: Kl | None = None
    rewards: list[Item] = []


@pytest.mark.parametrize(
    ("path", "first"),
    [
        (("step",), "steps"),
        (("cliprange",), "clip_range"),
        (("kl", "kl_coeff"), "kl.kl_coef"),
        (("kl_coef",), "kl.kl_coef"),
        (("kl_coeff",), "kl.kl_coef"),
        (("kl", "steps"), "steps"),
        (("rewards", 3, "weigth"), "rewards.3.weight"),
        (("critic", "targt"), "critic.target"),
    ],
)
def test_the_likeliest_key_comes_first(path: tuple[str | int, ...], first: str) -> None:
    assert near_keys(path, Recipe)[0] == first


def test_a_key_that_resembles_nothing_gets_no_hint() -> None:
    assert near_keys(("zebra",), Recipe) == []
