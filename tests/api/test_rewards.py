"""Tests of rlhf.api.rewards: functions, classes, classifiers and sections."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.errors import ConfigError, RewardError


class Spied:
    """A reward with a life, as a class."""

    closed = 0

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:
        return [float(len(text)) for text in completions]

    def close(self) -> None:
        Spied.closed += 1


def test_rewards_are_functions_classes_classifiers_and_sections_together(tiny: ModuleType, workshop: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    classifier = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model")
    Spied.closed = 0
    rewards = [
        tiny.share_of_e, Spied, classifier, {"model": str(workshop / "reward_model"), "name": "same", "weight": 2.0},
        {"kind": "length", "at_most": 3, "weight": 0.1}, {"function": lambda completions: [1.0] * len(completions)},
    ]  # fmt: skip
    with tiny.ppo_trainer(workshop, rewards) as made:
        scored = made.score(made.rollout(tiny.BEGINNINGS))
    assert Spied.closed == 1
    means = {name.split("/")[1]: value for name, value in scored.metrics.items() if name.endswith("/mean")}
    assert set(means) == {"share_of_e", "Spied", "model", "same", "length", "lambda"}
    assert means["same"] == means["model"], "a classifier is what lies in its directory"
    weights = {"share_of_e": 1.0, "Spied": 1.0, "model": 1.0, "same": 2.0, "length": 0.1, "lambda": 1.0}
    total = sum(weight * means[name] for name, weight in weights.items())
    assert sum(scored.raw) / 8 == pytest.approx(total, rel=1e-6)


def test_a_classifier_with_two_labels_reads_text_with_its_own_tokenizer(tiny: ModuleType, workshop: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    config = AutoConfig.from_pretrained(workshop / "reward_model")
    config.num_labels, config.id2label, config.label2id = 2, {0: "bad", 1: "good"}, {"bad": 0, "good": 1}
    torch.manual_seed(1)
    classifier = AutoModelForSequenceClassification.from_config(config)
    tokenizer = AutoTokenizer.from_pretrained(workshop / "policy")
    given = {"model": classifier, "tokenizer": tokenizer, "label": "good", "activation": "softmax"}
    made = tiny.ppo_trainer(workshop, given)
    rollout = made.rollout(tiny.BEGINNINGS)
    scores = made.score(rollout).scores
    ids = tokenizer(rollout.episodes[3].prompt + rollout.completions[3], return_tensors="pt")
    expected = classifier(**ids).logits.softmax(-1)[0, 1]
    assert scores[3] == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(ConfigError, match=r"names no label; the model has \['bad', 'good'\]"):
        tiny.ppo_trainer(workshop, {"model": classifier, "tokenizer": tokenizer})


def test_a_reward_that_raises_is_named_with_its_line(tiny: ModuleType, workshop: Path) -> None:
    def wrong(completions: list[str]) -> list[float]:
        return [1 / 0 for _ in completions]

    with pytest.raises(
        RewardError, match=r"reward 'wrong' raised ZeroDivisionError.*test_rewards\.py, line \d+"
    ) as caught:
        tiny.ppo_trainer(workshop, wrong).train(tiny.BEGINNINGS)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
