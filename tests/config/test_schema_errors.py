"""Values that cannot be run are refused with the key, the range and the found value, all of them at once."""

import copy
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.config import EvaluateConfig, GenerateConfig, PPOConfig, RewardModelConfig, RunConfig, SftConfig
from rlhf.config.course import BestSection
from rlhf.config.reading.loader import validate
from rlhf.config.reading.overrides import apply_overrides, parse_overrides
from rlhf.config.reading.yaml_text import format_yaml
from rlhf.errors import ConfigError

SFT: dict[str, object] = {"output_dir": "x", "model": {"path": "m"}, "data": {"path": "d.jsonl"}, "steps": 2}
PPO: dict[str, object] = {
    "output_dir": "x",
    "model": {"path": "m"},
    "prompts": {"path": "p.jsonl"},
    "rewards": [{"kind": "function", "path": "my.py:score"}],
    "steps": 2,
}
EVALUATE: dict[str, object] = {"output_dir": "x", "policies": {"sft": "a"}, "prompts": {"path": "p.jsonl"}}
GENERATE: dict[str, object] = {"model": "m"}

VALID = {
    SftConfig: SFT,
    RewardModelConfig: SFT,
    PPOConfig: PPO,
    EvaluateConfig: EVALUATE,
    GenerateConfig: GENERATE,
}

TABLE = [
    # learning rate
    (PPOConfig, "optimizer.learning_rate=0", "optimizer.learning_rate: must be greater than 0 [got 0]"),
    (PPOConfig, "optimizer.learning_rate=-1e-5", "optimizer.learning_rate: must be greater than 0 [got -1e-05]"),
    (SftConfig, "optimizer.learning_rate=.nan", "optimizer.learning_rate: must be a finite number [got NaN]"),
    (SftConfig, "optimizer.learning_rate=.inf", "optimizer.learning_rate: must be a finite number [got Infinity]"),
    (RewardModelConfig, "optimizer.learning_rate=0", "optimizer.learning_rate: must be greater than 0 [got 0]"),
    (PPOConfig, "value_optimizer.learning_rate=0", "value_optimizer.learning_rate: must be greater than 0 [got 0]"),
    # clip
    (PPOConfig, "clip_range=0", "clip_range: must be greater than 0 [got 0]"),
    (PPOConfig, "clip_range=-0.2", "clip_range: must be greater than 0 [got -0.2]"),
    # KL, discount, temperature
    (PPOConfig, "kl_coef=-0.1", "kl_coef: must be at least 0 [got -0.1]"),
    (PPOConfig, "gamma=1.5", "gamma: must be at most 1 [got 1.5]"),
    (PPOConfig, "gamma=-0.1", "gamma: must be at least 0 [got -0.1]"),
    (PPOConfig, "gae_lambda=1.01", "gae_lambda: must be at most 1 [got 1.01]"),
    (PPOConfig, "sampling.temperature=0", "sampling.temperature: must be greater than 0 [got 0]"),
    (PPOConfig, "sampling.temperature=-1", "sampling.temperature: must be greater than 0 [got -1]"),
    (EvaluateConfig, "decoding.temperature=-1", "decoding.temperature: must be at least 0 [got -1]"),
    (GenerateConfig, "decoding.temperature=-1", "decoding.temperature: must be at least 0 [got -1]"),
    (PPOConfig, "sampling.top_p=1.5", "sampling.top_p: unknown key [got 1.5]"),
    # steps and sizes
    (PPOConfig, "steps=0", "steps: must be at least 1 [got 0]"),
    (SftConfig, "steps=0", "steps: must be at least 1 [got 0]"),
    (SftConfig, "batch_size=0", "batch_size: must be at least 1 [got 0]"),
    (
        PPOConfig,
        "minibatches=7",
        "minibatches (7) must divide rollout_batch_size (64); nearest valid: 4 or 8",
    ),
    (
        PPOConfig,
        "minibatches=48",
        "minibatches (48) must divide rollout_batch_size (64); nearest valid: 32 or 64",
    ),
    # the ladder
    (
        PPOConfig,
        "advantage=rloo",
        "advantage: rloo compares responses to one prompt: num_samples_per_prompt must be at least 2, found 1",
    ),
    (PPOConfig, "num_samples_per_prompt=3", "num_samples_per_prompt (3) must divide rollout_batch_size (64)"),
    (PPOConfig, "num_samples_per_prompt=0", "num_samples_per_prompt: must be at least 1 [got 0]"),
    (SftConfig, "epochs=1", "set exactly one of epochs and steps"),
    # names and types
    (PPOConfig, "kl_coeff=0.2", "kl_coeff: unknown key (did you mean kl_coef?) [got 0.2]"),
    (PPOConfig, "temperature=1.0", "temperature: unknown key (did you mean sampling.temperature?) [got 1.0]"),
    (PPOConfig, "learning_rate=1.0", "learning_rate: unknown key (did you mean optimizer.learning_rate?) [got 1.0]"),
    (PPOConfig, "epochs=four", 'epochs: must be an integer [got "four"]'),
    (PPOConfig, "rewards=[]", "rewards: must hold at least 1, holds 0 [got []]"),
]


@pytest.mark.parametrize(("model", "override", "line"), TABLE, ids=[f"{m.__name__}-{o}" for m, o, _ in TABLE])
def test_a_value_that_cannot_be_run_has_its_line(model: type, override: str, line: str) -> None:
    mapping = apply_overrides(copy.deepcopy(VALID[model]), parse_overrides([override]))
    with pytest.raises(ConfigError) as caught:
        validate(model, mapping, "x.yaml")
    assert str(caught.value) == f"config error: x.yaml: {line}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["advantage=baseline", "gae_lambda=0.5"], "gae_lambda has no effect with advantage: baseline - leave it out"),
        (
            ["advantage=group", "num_samples_per_prompt=4", "value_coef=0.5"],
            "value_coef has no effect with advantage: group, which trains no value head - leave it out",
        ),
        (
            ["advantage=trajectory", "critic=separate", "critic_model={path: m}"],
            "critic has no effect with advantage: trajectory, which trains no value head - leave it out",
        ),
        (
            ["advantage=reward_to_go", "value_optimizer.learning_rate=0.1"],
            "value_optimizer has no effect with advantage: reward_to_go, which trains no value head - leave it out, or "
            "set it to null",
        ),
        (
            ["objective=policy_gradient", "clip_range=0.1"],
            "clip_range has no effect with objective: policy_gradient - leave it out",
        ),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(overrides: list[str], line: str) -> None:
    mapping = apply_overrides(copy.deepcopy(PPO), parse_overrides(overrides))
    with pytest.raises(ConfigError) as caught:
        validate(PPOConfig, mapping, "x.yaml")
    assert str(caught.value) == f"config error: x.yaml: {line}"


@pytest.mark.parametrize("advantage", ["trajectory", "reward_to_go", "baseline", "gae", "rloo", "group"])
@pytest.mark.parametrize("objective", ["policy_gradient", "ppo"])
def test_every_rung_is_taken_and_loads_back_equal(advantage: str, objective: str) -> None:
    chosen = {"advantage": advantage, "objective": objective, "num_samples_per_prompt": 2}
    config = validate(PPOConfig, {**PPO, **chosen}, "x.yaml")
    assert validate(PPOConfig, config.model_dump(mode="json"), "config.yaml") == config
    assert config.has_critic == (advantage in ("baseline", "gae"))
    assert config.prompts_per_step == 32


def test_an_override_takes_back_the_value_optimizer_of_a_file() -> None:
    of_file = {**PPO, "value_optimizer": {"learning_rate": 0.5}}
    overrides = parse_overrides(["advantage=rloo", "num_samples_per_prompt=4", "value_optimizer=null"])
    config = validate(PPOConfig, apply_overrides(of_file, overrides), "x.yaml")
    assert config.value_optimizer == validate(PPOConfig, PPO, "x.yaml").value_optimizer
    assert config.value_optimizer.learning_rate == 1e-3
    assert validate(PPOConfig, config.model_dump(mode="json"), "config.yaml") == config
    recipe = {"output_dir": "r", "ppo": of_file}
    in_recipe = apply_overrides(recipe, parse_overrides(["ppo.value_optimizer=null"]))
    assert validate(RunConfig, in_recipe, "run.yaml").ppo.value_optimizer == config.value_optimizer


def test_no_clip_is_a_choice() -> None:
    assert validate(PPOConfig, {**PPO, "clip_range": None}, "x.yaml").clip_range is None


@pytest.mark.parametrize("model", VALID)
def test_the_configuration_without_mistakes_is_taken(model: type) -> None:
    validate(model, VALID[model], "x.yaml")


def test_all_mistakes_of_a_file_are_reported_at_once_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ppo.yaml"
    path.write_text(format_yaml(PPO))
    arguments = ["kl_coef=-1", "gamma=2", "clip_range=0", "optimizer.learning_rate=.nan", "sampling.temperature=0"]
    arguments += ["minibatches=7", "steps=0", "seeed=1"]

    assert main(["ppo", "--config", str(path), *arguments]) == 2

    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("config error: ") for line in lines)
    keys = [line.split(": ")[2] for line in lines]
    assert set(keys) == {
        "kl_coef",
        "gamma",
        "clip_range",
        "optimizer.learning_rate",
        "sampling.temperature",
        "steps",
        "seeed",
        "minibatches (7) must divide rollout_batch_size (64); nearest valid",
    }
    assert len(lines) == len(set(keys))


HELD_OUT = ["eval_prompts={path: h.jsonl}", "eval_every=2"]
LATE = "best: a run that is evaluated at its end alone has nothing to choose from - set eval_every"


@pytest.mark.parametrize(
    ("model", "overrides", "line"),
    [
        (PPOConfig, ["eval_every=2"], "eval_every: there is nothing to evaluate - set eval_prompts"),
        (PPOConfig, [HELD_OUT[0], "best={metric: evaluation/scores}"], LATE),
        (
            PPOConfig,
            ["eval_every=2", "best={metric: evaluation/scores}"],
            "best.metric: evaluation/scores is measured on held-out data - set eval_prompts.path",
        ),
        (
            PPOConfig,
            [*HELD_OUT, "best={metric: evaluation/reward}"],
            "best.metric: an evaluation has evaluation/scores, evaluation/kl, evaluation/share_ended, "
            "evaluation/response_length, found evaluation/reward",
        ),
        (
            SftConfig,
            ["eval_every=2", "best={metric: eval/loss}"],
            "best.metric: eval/loss is measured on held-out data - set eval_data.path",
        ),
        (
            RewardModelConfig,
            ["eval_every=2", "eval_data={path: h.jsonl}", "best={metric: eval/perplexity}"],
            "best.metric: an evaluation has eval/accuracy, eval/loss, eval/margin, eval/calibration_error, found "
            "eval/perplexity",
        ),
        (SftConfig, ["early_stopping={patience: 2}"], "early_stopping: nothing says what is better - set best.metric"),
        (
            PPOConfig,
            ["kl_control={stop_at_kl: 8, max_kl: 8}"],
            "kl_control.stop_at_kl (8) must be below kl_control.max_kl (8), which stops it first",
        ),
        (PPOConfig, ["guards={rollback: {lr_factor: 1.5}}"], "guards.rollback.lr_factor: must be at most 1 [got 1.5]"),
    ],
)
def test_a_rule_that_could_never_act_is_refused(model: type, overrides: list[str], line: str) -> None:
    mapping = apply_overrides(copy.deepcopy(VALID[model]), parse_overrides(overrides))
    with pytest.raises(ConfigError) as caught:
        validate(model, mapping, "x.yaml")
    assert str(caught.value) == f"config error: x.yaml: {line}"


@pytest.mark.parametrize(
    ("metric", "given", "expected"),
    [
        ("evaluation/scores", None, True),
        ("eval/accuracy", None, True),
        ("evaluation/kl", None, False),
        ("eval/loss", None, False),
        ("eval/perplexity", None, False),
        ("eval/calibration_error", None, False),
        ("evaluation/kl", True, True),
        ("evaluation/scores", False, False),
    ],
)
def test_the_name_of_a_metric_says_whether_higher_is_better_unless_the_file_does(
    metric: str, given: bool | None, expected: bool
) -> None:
    assert BestSection(metric=metric, greater_is_better=given).is_greater_better is expected


def test_held_out_prompts_are_read_as_the_prompts_are() -> None:
    prompts = {"path": "p.jsonl", "max_length": 32, "column_map": {"prompt": "question"}, "limit": 9, "split": "train"}
    config = validate(PPOConfig, {**PPO, "prompts": prompts, "eval_prompts": {"path": "h.jsonl"}}, "x.yaml")
    section = config.held_out_prompts
    assert section is not None and (section.path, section.limit, section.split) == ("h.jsonl", None, None)
    assert (section.max_length, section.column_map) == (32, {"prompt": "question"})
