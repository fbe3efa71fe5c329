"""Tests of rlhf.api.trainer: what all three trainers take and refuse alike."""

from pathlib import Path
from typing import Any

import pytest

from rlhf import PPOSettings, PPOTrainer, RewardSettings, RewardTrainer, SFTSettings, SFTTrainer
from rlhf.config import PPOConfig, RewardModelConfig, SftConfig
from rlhf.errors import ConfigError, DataError

TRAINERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "sft": (SFTTrainer, SFTSettings, {}),
    "reward_model": (RewardTrainer, RewardSettings, {}),
    "ppo": (PPOTrainer, PPOSettings, {"reward": {"kind": "length", "at_most": 3}}),
}
ROWS: dict[str, list[dict[str, str]]] = {
    "sft": [{"prompt": "A film", "completion": " of note."}],
    "reward_model": [{"prompt": "A film", "chosen": " of note.", "rejected": "."}],
    "ppo": [{"prompt": "A film"}],
}
ALL = pytest.mark.parametrize("name", TRAINERS)


def make(name: str, workshop: Path, **settings: Any) -> Any:
    trainer, kind, more = TRAINERS[name]
    given = {"steps": 1, "model": {"precision": "float32"}, **settings}
    if name == "ppo":
        given |= {"rollout_batch_size": 2, "sampling": {"max_new_tokens": 2}}
    return trainer(workshop / "policy", config=kind(**given), **more)


@ALL
def test_model_and_config_by_keyword_are_enough(name: str, workshop: Path) -> None:
    with make(name, workshop) as made:
        history = made.train(ROWS[name])
    assert history == made.history and [row["step"] for row in history] == [1]


@ALL
def test_what_is_missing_or_of_another_kind_is_one_clear_line(name: str, workshop: Path) -> None:
    trainer, kind, more = TRAINERS[name]
    with pytest.raises(ConfigError, match=rf"^config: it is missing - give {kind.__name__}\(steps=...\)$"):
        trainer(workshop / "policy", **more)
    with pytest.raises(ConfigError, match=rf"expected {kind.__name__}, found dict - the order is .*tokenizer, config$"):
        trainer(workshop / "policy", config={"steps": 1}, **more)
    with pytest.raises(ConfigError, match="they need output_dir"):
        make(name, workshop, checkpoints={"every": 1})
    with pytest.raises(ConfigError, match="callbacks: expected a list"):
        trainer(workshop / "policy", config=kind(steps=1), callbacks=3, **more)
    with pytest.raises(ConfigError, match="no such directory - give a model directory"):
        trainer("no/such/model", config=kind(steps=1), **more)


def test_a_missing_reward_is_one_clear_line(workshop: Path) -> None:
    with pytest.raises(ConfigError, match="^reward: it is missing - give a function"):
        PPOTrainer(workshop / "policy", config=PPOSettings(steps=1))


@ALL
def test_the_config_of_a_yaml_file_is_refused_as_its_paths_would_do_nothing(name: str, workshop: Path) -> None:
    trainer, kind, more = TRAINERS[name]
    common = {"output_dir": "x", "model": {"path": "m"}, "steps": 1}
    config = {
        "sft": lambda: SftConfig(**common, data={"path": "d"}),
        "reward_model": lambda: RewardModelConfig(**common, data={"path": "d"}),
        "ppo": lambda: PPOConfig(**common, prompts={"path": "p"}, rewards=[{"kind": "length", "at_most": 1}]),
    }[name]()
    with pytest.raises(ConfigError, match=f"expected {kind.__name__}, found {type(config).__name__}, whose paths"):
        trainer(workshop / "policy", config=config, **more)


@ALL
def test_an_evaluation_that_cannot_work_is_one_line(name: str, workshop: Path) -> None:
    made = make(name, workshop)
    with pytest.raises(ConfigError, match="there is no evaluation - give held-out rows or a function"):
        made.train(ROWS[name], evaluate_every=1)
    with pytest.raises(ConfigError, match="expected at least 1, found 0"):
        made.train(ROWS[name], evaluation=ROWS[name], evaluate_every=0)
    with pytest.raises(DataError, match="expected a list of .* found int"):
        made.train(ROWS[name], evaluation=3)
    assert made.history == []
    with pytest.raises(ConfigError, match="expected a mapping of names to numbers, the function returned None"):
        made.train(ROWS[name], evaluation=lambda trainer: None)


def test_a_loop_of_ones_own_has_a_history_too(workshop: Path) -> None:
    made = make("ppo", workshop)
    rollout = made.rollout(["A film", "At last"])
    metrics = made.update(made.make_experience(rollout, made.score(rollout)))
    assert made.history == [{"step": 1.0, **metrics}]
