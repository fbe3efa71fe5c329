"""Tests of rlhf.config.shared, and of the rules between keys of the stages that use its sections."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from rlhf.config import EvaluateConfig, PPOConfig, RewardModelConfig, SftConfig
from rlhf.config.reading.loader import load_config, save_config, validate
from rlhf.config.shared import filled
from rlhf.errors import ConfigError

SFT = {"output_dir": "runs/x/sft", "model": {"path": "m"}, "data": {"path": "d.jsonl"}, "steps": 2}
PPO = {
    "output_dir": "runs/x/ppo",
    "model": {"path": "{run_dir}/sft/policy"},
    "prompts": {"path": "p.jsonl"},
    "rewards": [
        {"kind": "model", "path": "{run_dir}/reward_model/reward_model"},
        {"kind": "function", "path": "{run_dir}/mine.py:score", "weight": 0.5},
    ],
    "steps": 2,
}
EVALUATE = {
    "output_dir": "runs/x/evaluate",
    "policies": {"sft": "{run_dir}/sft/policy", "ppo": "{run_dir}/ppo/policy"},
    "prompts": {"path": "{run_dir}/prompts.jsonl"},
    "gold": {"train": "{run_dir}/a.jsonl", "heldout": "{run_dir}/b.jsonl"},
}
SETTINGS = [(SftConfig, SFT), (RewardModelConfig, SFT), (PPOConfig, PPO), (EvaluateConfig, EVALUATE)]
STAGES = pytest.mark.parametrize(("model", "mapping"), SETTINGS, ids=[model.__name__ for model, _ in SETTINGS])


def lines(model: type[BaseModel], mapping: dict[str, object]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        validate(model, mapping, "x.yaml")
    return [line.removeprefix("config error: x.yaml: ") for line in str(caught.value).splitlines()]


def test_the_run_directory_is_filled_in_in_sections_mappings_and_lists() -> None:
    ppo = validate(PPOConfig, PPO, "x.yaml")
    assert ppo.model.path == "runs/x/sft/policy"
    assert [reward.path for reward in ppo.rewards] == ["runs/x/reward_model/reward_model", "runs/x/mine.py:score"]
    evaluation = validate(EvaluateConfig, EVALUATE, "x.yaml")
    assert evaluation.policies == {"sft": "runs/x/sft/policy", "ppo": "runs/x/ppo/policy"}
    assert (evaluation.prompts.path, evaluation.gold.heldout) == ("runs/x/prompts.jsonl", "runs/x/b.jsonl")


def test_the_run_directory_follows_an_output_dir_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "ppo.yaml"
    path.write_text("model: {path: '{run_dir}/sft'}\noutput_dir: a/ppo\nprompts: {path: p}\nsteps: 1\n")
    overrides = ["output_dir=b/c/ppo", "rewards=[{kind: function, path: '{run_dir}/x.py:f'}]"]
    config = load_config(PPOConfig, path, overrides)
    assert (config.model.path, config.rewards[0].path) == ("b/c/sft", "b/c/x.py:f")


def test_the_output_dir_itself_is_never_filled_in_and_the_mapping_is_not_changed() -> None:
    given = {"output_dir": "{run_dir}/x", "model": {"path": "{run_dir}/y"}, "betas": [1, "{run_dir}"], "seed": 3}
    copy = {**given, "model": {"path": "{run_dir}/y"}, "betas": [1, "{run_dir}"]}
    assert filled(given, "R") == {"output_dir": "{run_dir}/x", "model": {"path": "R/y"}, "betas": [1, "R"], "seed": 3}
    assert given == copy


@pytest.mark.parametrize("output_dir", [3, None, "", ["a"]])
def test_a_wrong_output_dir_is_one_line_and_no_crash(output_dir: object) -> None:
    (line,) = lines(SftConfig, {**SFT, "output_dir": output_dir})
    assert line.startswith("output_dir: ")


@STAGES
def test_a_saved_config_loads_back_equal(model: type[BaseModel], mapping: dict[str, object], tmp_path: Path) -> None:
    config = validate(model, mapping, "x.yaml")
    save_config(config, tmp_path / "config.yaml")
    assert load_config(model, tmp_path / "config.yaml") == config


@pytest.mark.parametrize("betas", ["[0.8, 0.99]", "\n    - 0.8\n    - 0.99"])
def test_betas_are_a_yaml_list(betas: str, tmp_path: Path) -> None:
    path = tmp_path / "sft.yaml"
    path.write_text(f"output_dir: x\nmodel: {{path: m}}\ndata: {{path: d}}\nsteps: 1\noptimizer:\n  betas: {betas}\n")
    config = load_config(SftConfig, path)
    assert config.optimizer.betas == (0.8, 0.99)
    save_config(config, tmp_path / "saved.yaml")
    assert load_config(SftConfig, tmp_path / "saved.yaml") == config


def test_adapters_and_trainable_layers_exclude_each_other() -> None:
    found = lines(SftConfig, {**SFT, "model": {"path": "m", "lora": {}, "trainable_layers": 2}})
    assert found == ["model: lora and trainable_layers exclude each other: set one of them to null"]
    for choice in ({"lora": {"r": 4}}, {"trainable_layers": 2}, {"lora": {"r": 4}, "trainable_layers": None}):
        validate(SftConfig, {**SFT, "model": {"path": "m", **choice}}, "x.yaml")


@pytest.mark.parametrize(("epochs", "steps"), [(None, None), (1, 1)])
@pytest.mark.parametrize("model", [SftConfig, RewardModelConfig])
def test_epochs_or_steps_and_not_both(model: type[BaseModel], epochs: int | None, steps: int | None) -> None:
    assert lines(model, {**SFT, "epochs": epochs, "steps": steps}) == ["set exactly one of epochs and steps"]


@pytest.mark.parametrize(
    "critic",
    [{"critic": "separate"}, {"critic_model": {"path": "rm"}}, {"critic": "shared", "critic_model": {"path": "rm"}}],
)
def test_a_separate_critic_needs_a_model_and_a_shared_one_refuses_it(critic: dict[str, object]) -> None:
    assert lines(PPOConfig, {**PPO, **critic}) == ["critic: separate needs critic_model, and critic: shared refuses it"]
    good = {**PPO, "critic": "separate", "critic_model": {"path": "{run_dir}/reward_model/reward_model"}}
    assert validate(PPOConfig, good, "x.yaml").critic_model.path == "runs/x/reward_model/reward_model"


def test_adapters_with_dropout_are_refused_in_ppo_alone() -> None:
    model = {"path": "m", "lora": {"dropout": 0.1}}
    assert lines(PPOConfig, {**PPO, "model": model}) == [
        "model.lora.dropout must be 0 in PPO: dropout makes the ratio noise"
    ]
    validate(SftConfig, {**SFT, "model": model}, "x.yaml")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_a_policy_is_called_what_a_file_may_be_called(name: str) -> None:
    (line,) = lines(EvaluateConfig, {**EVALUATE, "policies": {"ok": "a", name: "b"}})
    assert line.startswith("policies: a name is also a file name") and line.endswith(repr(name))
    assert validate(EvaluateConfig, {**EVALUATE, "policies": {"ppo-2.b_1": "a"}}, "x.yaml")


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("model.path=https://me:S3CRET@host/model", "path holds a secret (user or password)"),
        ("data.path=https://host/rows.jsonl?token=S3CRET", "path holds a secret (token)"),
        ("eval_data={path: 's3://key:S3CRET@bucket/rows'}", "path holds a secret (user or password)"),
        ("model.chat_template_kwargs={tool: {api_key: S3CRET}}", "chat_template_kwargs holds a secret (api_key)"),
        ("output_dir=https://host/?sig=S3CRET", "output_dir holds a secret (sig)"),
    ],
)
def test_a_secret_in_any_value_is_refused_and_not_shown(override: str, part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(SftConfig, Path("configs/smoke/sft.yaml"), [override])
    assert part in str(caught.value) and "saved with the run - give a local path" in str(caught.value)
    assert "S3CRET" not in str(caught.value)
