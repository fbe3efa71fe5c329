"""Tests of rlhf.evaluation.judges.scorers."""

import numpy as np
import pytest
import torch

from rlhf.config import EvaluateSettings
from rlhf.data.records import Row
from rlhf.data.tokenization import prepare_prompts
from rlhf.errors import ConfigError, RewardError
from rlhf.evaluation.judges.scorers import make_scorers
from rlhf.evaluation.respond import Response, load_policy

CPU = torch.device("cpu")
RESPONSES = [Response("x", (9, 11, 2), True), Response("yy", (30,), False)]


@pytest.fixture(scope="module")
def policy(policy_directory):
    return load_policy(str(policy_directory(0)), torch.float32, CPU)


@pytest.fixture(scope="module")
def prompts(policy):
    rows = [Row({"prompt": text, "bonus": 3.0}, "p.jsonl:1") for text in ("To me", "At heart the villain")]
    return prepare_prompts(rows, policy.tokenizer, max_length=32).items


@pytest.fixture
def scorers(policy):
    def make(sections, reward_model=None, **given):
        rewards = EvaluateSettings(judges=sections).rewards
        return make_scorers(rewards, reward_model, policy.tokenizer, dtype=torch.float32, device=CPU, given=given)

    return make


def test_the_reward_model_scores_each_response_apart(scorers, reward_model_directory, prompts):
    made = scorers({}, str(reward_model_directory))
    together = made.score("reward", prompts, RESPONSES)
    apart = [made.score("reward", [prompt], [response])[0] for prompt, response in zip(prompts, RESPONSES, strict=True)]
    assert together.tolist() == pytest.approx(apart, abs=1e-5)
    assert together[0] != together[1]


def test_a_language_model_is_no_reward_model(scorers, policy_directory):
    with pytest.raises(ConfigError, match="a reward model needs 1 label"):
        scorers({}, str(policy_directory(0)))


def test_judges_have_their_names_read_columns_and_take_weight_and_clip(scorers, prompts):
    def bonus(completions, bonus):
        return [len(text) * more for text, more in zip(completions, bonus, strict=True)]

    made = scorers(
        {
            "words": {"kind": "length", "at_most": 2, "weight": -2.0},
            "mine": {"kind": "function", "path": "m:f", "clip": 4},
        },
        mine=bonus,
    )
    assert made.names == ["words", "mine"]
    found = made.scores(prompts, RESPONSES)
    assert found["words"].tolist() == [2.0, 0.0]  # three tokens are one too many
    assert found["mine"].tolist() == [3.0, 4.0]


def test_a_response_without_a_score_is_nan_and_a_failure_that_stops_is_raised(scorers, prompts):
    def some(completions):
        return [None if text == "x" else 1.0 for text in completions]

    def broken(completions):
        raise ValueError("no")

    sections = {"some": {"kind": "function", "path": "m:f"}, "broken": {"kind": "function", "path": "m:g"}}
    made = scorers(sections, some=some, broken=broken)
    assert np.isnan(made.score("some", prompts, RESPONSES)[0]) and made.score("some", prompts, RESPONSES)[1] == 1.0
    with pytest.raises(RewardError, match="raised ValueError: no"):
        made.score("broken", prompts, RESPONSES)
