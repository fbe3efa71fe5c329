"""The operations that are forecast against those that profiled runs counted for the same rows."""

import json
from contextlib import chdir
from pathlib import Path

import pytest

from rlhf.config import RunConfig
from rlhf.config.reading.loader import load_config
from rlhf.forecast.load import decoding
from rlhf.forecast.ppo import ppo_load
from rlhf.forecast.supervised import reward_model_load, sft_load
from rlhf.ppo import train_ppo
from rlhf.reward_model import train_reward_model
from rlhf.sft import train_sft

NUM_PROMPTS = 50
# Every row is seen once or twice, and a response has one token whatever is drawn.
OVERRIDES = ["sft.epochs=2", "sft.model.trainable_layers=1", "reward_model.epochs=1", "reward_model.model.num_layers=1"]
OVERRIDES += ["reward_model.unfinished_fraction=0.3", "ppo.steps=1", f"ppo.rollout_batch_size={NUM_PROMPTS}"]
OVERRIDES += ["ppo.sampling.max_new_tokens=1", "ppo.epochs=3"]


def load(path, *more):
    return load_config(RunConfig, Path("configs/smoke/run.yaml"), [f"output_dir={path}", *OVERRIDES, *more])


def counted(directory):
    """Return the operations of a profiled stage by phase."""
    phases = json.loads((Path(directory) / "profile.json").read_text())["phases"]
    return {name: phase["flops"] for name, phase in phases.items()}


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """A recipe, and what was forecast of SFT and reward model before either existed."""
    path = tmp_path_factory.mktemp("run")
    with chdir(root):
        recipe = load(path)
        forecast = sft_load(recipe.sft, recipe)[0], reward_model_load(recipe.reward_model, recipe)[0]
        train_sft(recipe.sft, profile=True)
        train_reward_model(recipe.reward_model, profile=True)
    return path, forecast


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward_model"])
def test_a_supervised_stage_has_the_operations_that_were_forecast(run, stage):
    path, (sft, reward_model) = run
    seen = counted(path / stage)
    forecast = {"sft": sft, "reward_model": reward_model}[stage]
    assert seen["backward"] > 0
    assert forecast.training == pytest.approx(seen["forward"] + seen["backward"], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    ["model.trainable_layers=null", "model.trainable_layers=1", "model.lora={r: 2}"],
    ids=["all", "top", "lora"],
)
def test_ppo_has_the_operations_that_were_forecast(run, root, change, tmp_path):
    path, _ = run
    with chdir(root):
        recipe = load(path, f"ppo.{change}")
        forecast, _ = ppo_load(recipe.ppo, recipe)
        train_ppo(recipe.ppo.model_copy(update={"output_dir": str(tmp_path)}), profile=True)
    seen = counted(tmp_path)
    assert min(seen[name] for name in ("generation", "reward", "reference", "forward", "backward")) > 0
    assert forecast.training == pytest.approx(seen["forward"] + seen["backward"], rel=1e-12)
    assert forecast.inference == pytest.approx(seen["reward"] + seen["reference"], rel=1e-12)
    assert forecast.sampling == pytest.approx(decoding(seen["generation"], NUM_PROMPTS).sampling, rel=1e-12)
