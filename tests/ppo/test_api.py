"""Tests of rlhf.ppo.api: PPO from Python, whole and step by step."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlhf import Callback, PPOSettings, PPOTrainer
from rlhf.errors import CheckpointError, ConfigError, DataError, RewardError
from rlhf.ppo import train_ppo
from rlhf.training.metrics import read_metrics

BEGINNINGS = ["The film", "At last", "A", "So", "It was", "I", "From the start", "All in all"]


def share_of_e(completions: list[str], **columns: Any) -> list[float]:
    return [text.count("e") / max(len(text), 1) for text in completions]


def settings(lab: ModuleType, workshop: Path, **changes: Any) -> PPOSettings:
    """The settings of the laboratory's config, without its paths."""
    given = lab.ppo_config(workshop, **changes).model_dump(exclude={"output_dir", "rewards"})
    for section, paths in {"model": ("path", "random_init", "trust_remote_code"), "prompts": ("path", "split")}.items():
        given[section] = {name: value for name, value in given[section].items() if name not in paths}
    for name in ("column_map", "limit"):
        given["prompts"].pop(name)
    return PPOSettings.model_validate(given)


def trainer(lab: ModuleType, workshop: Path, reward: Any = share_of_e, **more: Any) -> PPOTrainer:
    options = {name: more.pop(name) for name in ("output_dir", "callbacks") if name in more}
    policy, reference = more.pop("policy", str(workshop / "policy")), more.pop("reference", None)
    return PPOTrainer(policy, reference, reward, None, settings(lab, workshop, **more), **options)


def rows(workshop: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workshop / "prompts.jsonl").read_text().splitlines()]


def weights(made: PPOTrainer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in made.ppo.policy.state_dict().items()}


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_time(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in ("seconds", "step")}


CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "resets, adaptive KL, running scale, early stop": {
        "score__normalise": "running", "optimizer__schedule": "cosine", "target_kl": 1e-6,
        "kl_control": {"controller": "adaptive", "target": 0.1, "horizon": 20}, "num_samples_per_prompt": 2,
        "model__trainable_layers": 1, "model__precision": "bfloat16",
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_a_loop_of_ones_own_and_train_and_the_stage_give_the_same_bytes(
    lab: ModuleType, workshop: Path, tmp_path: Path, case: str
) -> None:
    changes = dict(CHANGES[case])
    if case != "plain":
        changes["reset"] = lab.reset_section(workshop, 0.5)
    whole = trainer(lab, workshop, **changes)
    history = whole.train(rows(workshop))
    own, seen = trainer(lab, workshop, **changes), []
    for batch in own.batches(rows(workshop)):
        rollout = own.rollout(batch)
        experience = own.make_experience(rollout, own.score(rollout))
        seen.append(own.update(experience))
    assert [without_time(row) for row in history] == [without_time(row) for row in seen] and len(seen) == 2
    assert_equal(weights(whole), weights(own))
    config = lab.ppo_config(workshop, output_dir=str(tmp_path / "run"), **changes)
    stage = load_file(train_ppo(config) / "model.safetensors")
    whole.save(tmp_path / "policy")
    assert_equal(load_file(tmp_path / "policy" / "model.safetensors"), stage)
    logged = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [without_time(row) for row in logged] == [without_time(row) for row in history]
