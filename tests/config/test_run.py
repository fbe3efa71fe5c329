"""Tests of rlhf.config.run."""

from pathlib import Path

import pytest

from rlhf.config import RunConfig
from rlhf.config.reading.loader import load_config, save_config, validate
from rlhf.config.run import STAGES
from rlhf.errors import ConfigError

SFT = {"model": {"path": "m"}, "data": {"path": "d.jsonl"}, "steps": 2}
PPO = {
    "model": {"path": "{run_dir}/sft/policy"},
    "prompts": {"path": "p.jsonl"},
    "rewards": [{"kind": "function", "path": "{run_dir}/a.py:f"}],
    "steps": 2,
}
EVALUATE = {"policies": {"ppo": "{run_dir}/ppo/policy"}, "prompts": {"path": "p.jsonl"}}


def test_each_stage_writes_below_the_output_dir_and_reads_what_the_others_wrote() -> None:
    config = validate(RunConfig, {"output_dir": "runs/r", "sft": SFT, "ppo": PPO, "evaluate": EVALUATE}, "run.yaml")
    assert (config.sft.output_dir, config.ppo.output_dir) == ("runs/r/sft", "runs/r/ppo")
    assert config.evaluate.output_dir == "runs/r/evaluate"
    assert config.ppo.model.path == "runs/r/sft/policy"
    assert config.ppo.rewards[0].path == "runs/r/a.py:f"
    assert config.evaluate.policies == {"ppo": "runs/r/ppo/policy"}
    assert config.reward_model is None


def test_the_directory_of_a_stages_own_file_gives_way_to_that_of_the_recipe() -> None:
    config = validate(RunConfig, {"output_dir": "runs/r", "sft": {**SFT, "output_dir": "elsewhere/sft"}}, "run.yaml")
    assert config.sft.output_dir == "runs/r/sft"


def test_the_seed_is_handed_to_each_stage_that_names_none() -> None:
    stages = {"sft": {**SFT, "seed": 9}, "ppo": PPO, "evaluate": EVALUATE}
    config = validate(RunConfig, {"output_dir": "r", "seed": 4, **stages}, "run.yaml")
    assert (config.sft.seed, config.ppo.seed, config.evaluate.seed) == (9, 4, 4)
    without = validate(RunConfig, {"output_dir": "r", **stages}, "run.yaml")
    assert (without.seed, without.sft.seed, without.ppo.seed) == (0, 9, 0)


def test_a_recipe_of_files_takes_overrides_for_all_and_for_one_stage(tmp_path: Path) -> None:
    (tmp_path / "ppo.yaml").write_text(
        "output_dir: old/ppo\nmodel: {path: '{run_dir}/sft/policy'}\nprompts: {path: p}\nsteps: 1\n"
        "rewards: [{kind: function, path: 'a.py:f'}]\n"
    )
    path = tmp_path / "run.yaml"
    path.write_text("output_dir: old\nppo: ppo.yaml\n")
    overrides = ["output_dir=new", "ppo.kl_coef=0.1", "ppo.rewards=[{kind: model, path: '{run_dir}/rm'}]", "seed=5"]
    config = load_config(RunConfig, path, overrides)
    assert (config.ppo.output_dir, config.ppo.model.path) == ("new/ppo", "new/sft/policy")
    assert (config.ppo.kl_coef, config.ppo.rewards[0].path, config.ppo.seed) == (0.1, "new/rm", 5)


def test_a_saved_recipe_loads_back_equal(tmp_path: Path) -> None:
    config = validate(RunConfig, {"output_dir": "r", "seed": 4, "sft": SFT, "evaluate": EVALUATE}, "run.yaml")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(RunConfig, tmp_path / "config.yaml") == config


@pytest.mark.parametrize("output_dir", [{}, {"output_dir": 3}, {"output_dir": ""}])
def test_a_recipe_without_a_directory_says_so_and_does_not_crash(output_dir: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"config error: run\.yaml: output_dir: "):
        validate(RunConfig, {**output_dir, "sft": SFT}, "run.yaml")


def test_errors_of_every_stage_are_reported_at_once() -> None:
    stages = {"sft": {**SFT, "step": 3}, "ppo": {**PPO, "gamma": 2}}
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, {"output_dir": "r", **stages}, "run.yaml")
    assert str(caught.value).splitlines() == [
        "config error: run.yaml: sft.step: unknown key (did you mean sft.steps?) [got 3]",
        "config error: run.yaml: ppo.gamma: must be at most 1 [got 2]",
    ]


def test_the_stages_run_in_the_order_in_which_they_need_one_another() -> None:
    assert STAGES == ("sft", "reward_model", "ppo", "evaluate")
    assert set(STAGES) < set(RunConfig.model_fields)
