"""Rewards and settings at the ends of their range, and beyond."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "overrides", [(), ("gamma=0", "gae_lambda=0"), ("score.normalise=running",), ("score.clip=1",)], ids=" ".join
)
def test_24_a_constant_reward_gives_finite_numbers(overrides: tuple[str, ...], run: Callable) -> None:
    outcome = run("ppo", ["steps=2", *overrides])
    assert (outcome.status, outcome.errors) == (0, [])
    assert all(math.isfinite(number) for number in outcome.metrics.values())


@pytest.mark.parametrize("overrides", [(), ("whiten_advantages=false",), ("score.clip=5",)], ids=" ".join)
def test_25_a_reward_of_a_million_gives_finite_numbers(
    overrides: tuple[str, ...], run: Callable, tmp_path: Path
) -> None:
    outcome = run("ppo", ["steps=2", f"rewards=[{{kind: function, path: '{tmp_path}/rewards.py:huge'}}]", *overrides])
    assert (outcome.status, outcome.errors) == (0, [])
    assert all(math.isfinite(number) for number in outcome.metrics.values())


def test_26_to_28_wrong_numbers_are_reported_all_at_once(run: Callable) -> None:
    wrong = {
        "optimizer.learning_rate=0": "must be greater than 0 [got 0]",
        "value_optimizer.learning_rate=.nan": "must be a finite number [got NaN]",
        "clip_range=0": "must be greater than 0 [got 0]",
        "value_clip_range=-0.1": "must be greater than 0 [got -0.1]",
        "kl_coef=-0.5": "must be at least 0 [got -0.5]",
        "gamma=2": "must be at most 1 [got 2]",
        "gae_lambda=-1": "must be at least 0 [got -1]",
        "sampling.temperature=0": "must be greater than 0 [got 0]",
        "sampling.top_p=1.5": "unknown key [got 1.5]",
        "steps=0": "must be at least 1 [got 0]",
    }
    outcome = run("ppo", list(wrong))
    expected = {f"config error: command line: {key.partition('=')[0]}: {text}" for key, text in wrong.items()}
    assert (outcome.status, set(outcome.errors), len(outcome.errors)) == (2, expected, len(wrong))
    assert not outcome.directory.exists()


@pytest.mark.parametrize("number", ["0", "-1e-4", ".nan", ".inf"])
@pytest.mark.parametrize("verb", ["sft", "reward-model"])
def test_26_a_learning_rate_must_be_positive_and_finite(verb: str, number: str, refused: Callable[..., str]) -> None:
    line = refused(verb, [f"optimizer.learning_rate={number}"], 2)
    assert line.startswith("config error: command line: optimizer.learning_rate: must be ")


def test_29_minibatches_that_do_not_divide_are_refused_with_the_nearest_that_do(refused: Callable[..., str]) -> None:
    line = refused("ppo", ["rollout_batch_size=16", "minibatches=3"], 2)
    assert line.endswith("minibatches (3) must divide rollout_batch_size (16); nearest valid: 2 or 4")


@pytest.mark.parametrize("verb", ["sft", "reward-model", "ppo"])
def test_30_zero_steps_are_refused(verb: str, refused: Callable[..., str]) -> None:
    assert refused(verb, ["steps=0"], 2) == "config error: command line: steps: must be at least 1 [got 0]"
