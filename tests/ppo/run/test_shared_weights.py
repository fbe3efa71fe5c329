"""Frozen weights that policy, reference and reward model have in common are in memory once."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from rlhf.ppo.run import assembly


def test_frozen_weights_that_policy_and_reward_model_have_in_common_are_held_once(
    tiny: ModuleType, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = AutoModelForSequenceClassification.from_pretrained(workshop / "policy", num_labels=1)
    scorer.save_pretrained(tmp_path / "scorer")
    tiny.give_tokenizer(tmp_path / "scorer")
    rewards = [{"kind": "model", "path": str(tmp_path / "scorer")}]
    config = tiny.ppo_config(workshop, rewards=rewards, model__trainable_layers=1)

    def weights() -> tuple[dict[int, int], dict[str, Any]]:
        made = tiny.parts(config)
        policy = made.trainer.policy.lm
        reward = made.trainer.collector.scorer.models[0].classifier
        shared = {p.data_ptr(): p.numel() for p in policy.parameters() if not p.requires_grad}
        common = {p.data_ptr(): p.numel() for p in reward.parameters() if p.data_ptr() in shared}
        made.trainer.step(made.prompts)
        return common, {name: value.clone() for name, value in policy.state_dict().items()}

    common, trained = weights()
    embeddings = scorer.get_input_embeddings().weight.numel()
    assert sum(common.values()) > embeddings > 0
    monkeypatch.setattr(assembly, "share_equal_weights", lambda models: 0)
    apart, same = weights()
    assert not apart
    assert all(torch.equal(value, same[name]) for name, value in trained.items())
