"""SFT and the reward model on an emulated GPU: devices never mix, and the host waits once a step."""

from pathlib import Path

import pytest

from rlhf.config import RewardModelConfig, SftConfig
from rlhf.config.reading.loader import load_config
from rlhf.reward_model import train_reward_model
from rlhf.sft import train_sft
from rlhf.training.supervised import SupervisedSteps

pytestmark = pytest.mark.usefixtures("in_the_repository")
STEPS = {
    "sft": (SftConfig, train_sft, ["epochs=null", "steps=2", "model.trainable_layers=1"]),
    "reward_model": (
        RewardModelConfig,
        train_reward_model,
        ["epochs=null", "steps=2", "model.path=data/tiny_model", "model.random_init=true", "unfinished_fraction=0.1"],
    ),
}


@pytest.mark.sweep
@pytest.mark.parametrize("stage", list(STEPS))
def test_a_run_mixes_no_devices_and_waits_once_a_step(gpu, monkeypatch, tmp_path, stage):
    kind, train, changes = STEPS[stage]
    more = ["data.limit=24", "eval_data.limit=4", "microbatch_tokens=256", f"output_dir={tmp_path / stage}"]
    config = load_config(kind, Path(f"configs/smoke/{stage}.yaml"), [*changes, *more, "model.precision=bfloat16"])
    step, seen = SupervisedSteps.step, []

    def counted(self, index):
        with gpu.counted() as waits:
            report = step(self, index)
        seen.append((sum(waits.values()), len(self.plan.microbatches(self.plan.batch(index)))))
        return report

    monkeypatch.setattr(SupervisedSteps, "step", counted)
    train(config)
    assert [waits for waits, _ in seen] == [1, 1] and max(microbatches for _, microbatches in seen) > 1, seen
