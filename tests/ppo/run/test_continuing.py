"""PPO that continues from a policy that PPO has trained: its value head, and a reference of its own."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlhf import PPOTrainer
from rlhf.config import PPOSettings
from rlhf.errors import ConfigError
from rlhf.ppo import train_ppo


@pytest.fixture(scope="module")
def trained(tiny: ModuleType, workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy after two PPO steps with large learning rates."""
    output = tmp_path_factory.mktemp("trained")
    config = tiny.ppo_config(
        workshop, output_dir=str(output), optimizer__learning_rate=1e-2, value_optimizer={"learning_rate": 1e-2}
    )
    return train_ppo(config)


def continued(tiny: ModuleType, workshop: Path, trained: Path, output: Path, **changes: Any) -> Any:
    return tiny.ppo_config(workshop, model__path=str(trained), output_dir=str(output), **changes)


def first_row(output: Path) -> dict[str, float]:
    row: dict[str, float] = json.loads((output / "metrics.jsonl").read_text().splitlines()[0])
    return row


@pytest.mark.slow
def test_the_kl_goes_on_from_where_it_was_with_a_reference(
    tiny: ModuleType, workshop: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_ppo(continued(tiny, workshop, trained, tmp_path / "alone"))
    assert "so the KL starts at 0 - see `reference`" in capsys.readouterr().out
    train_ppo(continued(tiny, workshop, trained, tmp_path / "kept", reference=str(workshop / "policy")))
    assert "see `reference`" not in capsys.readouterr().out
    alone, kept = first_row(tmp_path / "alone"), first_row(tmp_path / "kept")
    assert alone["objective/kl"] == 0.0 and abs(kept["objective/kl"]) > 1e-3
    assert alone["val/first_ratio_deviation"] == kept["val/first_ratio_deviation"] == 0.0
    assert alone["objective/scores"] == kept["objective/scores"], "the same policy gave the same responses"


def test_the_value_head_is_loaded_again(
    tiny: ModuleType, workshop: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tiny.parts(continued(tiny, workshop, trained, tmp_path))
    saved = load_file(trained / "value_head.safetensors")
    assert any(bool(tensor.any()) for tensor in saved.values())
    tiny.assert_equal(saved, dict(made.trainer.policy.value_head.state_dict()))
    assert f"value head: continued from {trained}" in capsys.readouterr().out
    fresh = tiny.parts(tiny.ppo_config(workshop))
    assert not any(bool(tensor.any()) for tensor in fresh.trainer.policy.value_head.state_dict().values())


def test_without_a_critic_no_value_head_is_read(
    tiny: ModuleType, workshop: Path, trained: Path, tmp_path: Path
) -> None:
    changes = {"advantage": "rloo", "num_samples_per_prompt": 4}
    made = tiny.parts(continued(tiny, workshop, trained, tmp_path, **changes))
    assert not any(bool(tensor.any()) for tensor in made.trainer.policy.value_head.state_dict().values())


@pytest.mark.parametrize("damage", ["shape", "bytes"])
def test_a_value_head_that_does_not_fit_is_refused(
    tiny: ModuleType, workshop: Path, trained: Path, tmp_path: Path, damage: str
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    for file in trained.iterdir():
        (policy / file.name).write_bytes(file.read_bytes())
    head = policy / "value_head.safetensors"
    if damage == "shape":
        save_file({"linear.weight": torch.zeros(1, 3), "linear.bias": torch.zeros(1)}, head)
    else:
        head.write_bytes(b"nothing")
    message = (
        r"value_head.safetensors: expected .*, found .* - give the critic" if damage == "shape" else "cannot be read"
    )
    with pytest.raises(ConfigError, match=message):
        tiny.parts(continued(tiny, workshop, policy, tmp_path / "run"))


def test_a_reference_with_another_tokenizer_is_refused(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in (workshop / "policy").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    text = json.loads((other / "tokenizer.json").read_text())
    vocabulary = text["model"]["vocab"]
    first, second = list(vocabulary)[-2:]  # the same size, two ids exchanged
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(text))
    with pytest.raises(ConfigError, match="reference: .* has another tokenizer .* so no KL is defined"):
        tiny.parts(tiny.ppo_config(workshop, reference=str(other)))
    with pytest.raises(ConfigError, match="reference: .* has another tokenizer"):
        PPOTrainer(str(workshop / "policy"), str(other), tiny.share_of_e, config=PPOSettings(steps=1))


def test_the_policy_named_as_its_own_reference_is_no_second_model(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reference=str(workshop / "policy"), model__trainable_layers=1))
    trainer = made.trainer
    shared = {p.data_ptr() for p in trainer.policy.lm.parameters()} & {
        p.data_ptr() for p in trainer.collector.reference.model.parameters()
    }
    assert shared, "frozen weights are held once"
