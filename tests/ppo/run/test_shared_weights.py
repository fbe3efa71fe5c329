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


def test_a_finished_run_that_is_taken_up_writes_into_no_reward_model(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    path = str(workshop / "reward_model")
    settings = {
        **{"critic": "separate", "critic_model": {"path": path, "lora": {"r": 2}}, "steps": 2},
        "value_optimizer": {"learning_rate": 0.1, "schedule": "constant"},
    }

    def made() -> Any:
        reward = {"kind": "model", "path": path}
        return tiny.ppo_trainer(workshop, reward=reward, output_dir=tmp_path / "run", **settings)

    def held(trainer: Any) -> dict[str, torch.Tensor]:
        model = trainer.ppo.collector.scorer.models[0]
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}

    prompts = [row["prompt"] for row in tiny.prompt_rows(workshop)]
    made().train(prompts)
    second = made()
    before = held(second)
    second.train(prompts)
    after = held(second)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    critic = {name.replace(".base_layer", ""): tensor for name, tensor in second.ppo.policy.critic.state_dict().items()}
    assert any(not torch.equal(critic[name], before[f"classifier.{name}"]) for name in critic if "proj.weight" in name)
