"""Tests of rlhf.merge."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.cli import main
from rlhf.errors import CheckpointError, ConfigError
from rlhf.merge import merge
from rlhf.ppo import train_ppo


@pytest.fixture(scope="module")
def adapter(tiny: ModuleType, workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The policy of a PPO run with LoRA."""
    output = tmp_path_factory.mktemp("adapter")
    config = tiny.ppo_config(
        workshop, output_dir=str(output), model__lora={"r": 4}, optimizer__learning_rate=1e-2, steps=1
    )
    return train_ppo(config)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(3, 11)[None]).logits
    return found


@pytest.mark.slow
def test_the_merged_model_computes_what_base_and_adapter_compute(
    adapter: Path, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", str(adapter), str(tmp_path / "merged")]) == 0
    assert capsys.readouterr().out == f"results: {tmp_path / 'merged'}\n"
    together = AutoPeftModelForCausalLM.from_pretrained(adapter)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(workshop / "policy")
    torch.testing.assert_close(logits(merged), logits(together), rtol=0, atol=1e-5)
    assert float((logits(merged) - logits(base)).abs().max()) > 1e-2
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert len(AutoTokenizer.from_pretrained(tmp_path / "merged")) == len(AutoTokenizer.from_pretrained(adapter))
    head = "value_head.safetensors"
    assert (tmp_path / "merged" / head).read_bytes() == (adapter / head).read_bytes()


def test_what_is_no_adapter_is_refused(workshop: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"merge: .*policy: holds no adapter_config.json, so there is nothing to merge"
    ):
        merge(str(workshop / "policy"), tmp_path / "out")


def test_files_are_not_replaced(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already - choose another directory"):
        merge(str(adapter), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
