"""Tests of rlhf.config.rewards."""

from typing import Any

import pytest

from rlhf.config import PPOConfig
from rlhf.config.reading.loader import validate
from rlhf.config.rewards import reward_names
from rlhf.errors import ConfigError

LENGTH = {"kind": "length", "at_most": 20}
FUNCTION = {"kind": "function", "path": "my.py:score"}
MODEL = {"kind": "model", "path": "rm"}


def config(*rewards: dict[str, Any], **more: Any) -> PPOConfig:
    given = {"output_dir": "runs/x", "model": {"path": "m"}, "prompts": {"path": "p.jsonl"}, "steps": 2, **more}
    return validate(PPOConfig, {**given, "rewards": list(rewards)}, "ppo.yaml")


def test_every_kind_has_a_section() -> None:
    given = [
        FUNCTION,
        MODEL,
        {"kind": "ensemble", "models": [{"path": "a"}, {"path": "b", "label": "POSITIVE", "activation": "softmax"}]},
        {"kind": "http", "url": "http://localhost:5000/get_reward"},
        LENGTH,
        {"kind": "repetition"},
        {"kind": "regex", "pattern": "a+"},
        {"kind": "lexicon"},
    ]
    made = config(*given)
    assert [section.kind for section in made.rewards] == [section["kind"] for section in given]
    assert [section.deadline for section in made.rewards] == [60.0, None, None, 60.0, None, None, None, None]
    assert {(section.on_error, section.on_nan) for section in made.rewards} == {("stop", "stop")}


def test_a_reward_is_named_after_its_function_or_kind_with_a_number_where_two_agree() -> None:
    made = config(FUNCTION, FUNCTION, MODEL, {**MODEL, "name": "score_2"}, LENGTH, {**LENGTH, "name": "brief"})
    assert reward_names(made.rewards) == ["score", "score_3", "model", "score_2", "length", "brief"]


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([{**MODEL, "name": "a"}, {**LENGTH, "name": "a"}], "rewards: the name a appears twice"),
        (
            [FUNCTION, {**LENGTH, "gate": {"reward": "scor"}}],
            r"the gate of length names 'scor', which is no other reward; there are \['score'\]",
        ),
        ([{**LENGTH, "gate": {"reward": "length"}}], r"which is no other reward; there are \[\]"),
        ([{"kind": "length"}], r"rewards\.0: .*needs at_least above 0 or at_most"),
        ([{"kind": "length", "at_least": 5, "at_most": 3}], r"at_least \(5\) must not be above at_most \(3\)"),
        ([{"kind": "ensemble", "models": [{"path": "a"}]}], r"rewards\.0\.models: must hold at least 2, holds 1"),
        ([{"kind": "http", "url": "http://h/?api_key=S"}], "url holds a secret \\(api_key\\), and the url is saved"),
        ([{"kind": "http", "url": "http://h/", "deadline": None}], "deadline must be a number for a server"),
        ([{**MODEL, "name": "a b"}], r"rewards\.0\.name"),
        ([{**MODEL, "on_nan": "ignore"}], r"rewards\.0\.on_nan: must be 'stop', 'drop_episode' or 'neutral'"),
        ([{**MODEL, "activation": "relu"}], r"rewards\.0\.activation"),
        ([{**MODEL, "deadline": 0}], r"rewards\.0\.deadline: must be greater than 0"),
        ([{**MODEL, "cache": -1}], r"rewards\.0\.cache: must be at least 0"),
        ([{"kind": "modle", "path": "rm"}], r"kind' must be one of .* \(did you mean model\?\)"),
    ],
)
def test_what_cannot_work_is_refused(rewards: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config(*rewards)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("advantage", ["rloo", "group"])
def test_groups_of_responses_cannot_lose_members(advantage: str) -> None:
    more = {"advantage": advantage, "num_samples_per_prompt": 4}
    config({**MODEL, "on_nan": "neutral"}, **more)
    for option in ("on_nan", "on_error"):
        with pytest.raises(ConfigError, match=f"advantage: {advantage} needs whole groups: drop_episode would leave"):
            config({**MODEL, option: "drop_episode"}, **more)
