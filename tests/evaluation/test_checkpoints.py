"""Tests of rlhf.evaluation.checkpoints."""

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.errors import CheckpointError, ConfigError
from rlhf.evaluation.checkpoints import checkpoints_of, load_checkpoint, step_of
from rlhf.evaluation.respond import load_policy
from rlhf.ppo import train_ppo

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tiny: ModuleType, workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A factory: the directory of a PPO run, of two steps with a checkpoint after the first."""

    def run(*, steps: int = 2, **changes: Any) -> Path:
        directory = tmp_path_factory.mktemp("run") / "ppo"
        # No schedule depends on the number of steps: the first step of a longer run is that of a shorter one.
        constant = {"schedule": "constant", "warmup_fraction": 0.0}
        more = {"checkpoints": {"every": 1}, "value_optimizer": constant, "steps": steps, **changes}
        train_ppo(tiny.ppo_config(workshop, output_dir=str(directory), **more))
        return directory

    return run


@pytest.fixture(scope="module")
def whole(trained: Any) -> Path:
    return trained()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"model__lora": {"r": 2}}, marks=pytest.mark.slow),
        pytest.param({"model__trainable_layers": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_checkpoint_is_the_policy_that_a_run_of_so_many_steps_saves(trained: Any, changes: dict[str, Any]) -> None:
    run = trained(**changes)
    (checkpoint,) = checkpoints_of(run)
    assert step_of(checkpoint) == 1
    paths = [trained(steps=1, **changes) / "policy", checkpoint, run / "policy"]
    expected, policy, later = (load_policy(str(path), torch.float32, CPU) for path in paths)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        logits = [each.model(input_ids=ids).logits for each in (expected, policy, later)]
    torch.testing.assert_close(logits[1], logits[0], rtol=0, atol=0)
    assert (logits[2] - logits[0]).abs().max() > 1e-5  # one step more
    assert policy.eos_ids == expected.eos_ids


@pytest.mark.slow
def test_what_is_no_checkpoint_is_not_taken_for_one(whole: Path, tmp_path: Path) -> None:
    assert step_of(whole / "policy") is None and step_of("fetch:smollm2-135m") is None
    (tmp_path / "step-000001").mkdir()
    assert step_of(tmp_path / "step-000001") is None and checkpoints_of(tmp_path) == []


def test_a_checkpoint_out_of_its_run_is_refused(whole: Path, tmp_path: Path) -> None:
    away = shutil.copytree(whole / "checkpoints" / "step-000001", tmp_path / "a" / "b" / "step-000001")
    with pytest.raises(ConfigError, match=r"no such file - leave the checkpoint in its run"):
        load_checkpoint(str(away))
    (tmp_path / "a" / "config.yaml").write_text("output_dir: x\n")
    with pytest.raises(ConfigError, match=r"only checkpoints of `rlhf ppo` can answer"):
        load_checkpoint(str(away))


def test_a_damaged_checkpoint_and_one_of_other_weights_are_refused(whole: Path, tmp_path: Path) -> None:
    run = shutil.copytree(whole, tmp_path / "run")
    config = run / "config.yaml"
    text = config.read_text()
    assert "trainable_layers: null" in text
    config.write_text(text.replace("trainable_layers: null", "trainable_layers: 1"))
    with pytest.raises(CheckpointError, match="holds other weights than"):
        load_checkpoint(str(run / "checkpoints" / "step-000001"))
    masters = run / "checkpoints" / "step-000001" / "masters.safetensors"
    masters.write_bytes(masters.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        load_checkpoint(str(run / "checkpoints" / "step-000001"))
