"""Tests of rlhf.ppo.run.steps."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlhf.config import PPOConfig
from rlhf.ppo import train_ppo
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import PPOSteps
from rlhf.training.schedule import learning_rate_factor


def run_config(tiny: ModuleType, workshop: Path, output: Path, **changes: Any) -> Any:
    settings = {
        "steps": 4, "optimizer__schedule": "cosine", "optimizer__learning_rate": 1e-2, "score__normalise": "running",
        "kl_control": {"controller": "adaptive", "target": 0.1, "horizon": 20}, "samples_every": 2,
        "rewards": [
            {"kind": "function", "path": f"{workshop}/rewards.py:share_of_e", "weight": 2.0},
            {"kind": "function", "path": f"{workshop}/rewards.py:noise", "weight": 0.1},
            {"kind": "model", "path": str(workshop / "reward_model"), "weight": 0.5},
        ],
    }  # fmt: skip
    return tiny.ppo_config(workshop, output_dir=str(output), **(settings | changes))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model__precision": "bfloat16", "model__lora": {"r": 2, "alpha": 4.0}, "critic": "separate"},
    ],
)
def test_stopped_and_resumed_equals_uninterrupted(
    tiny: ModuleType,
    workshop: Path,
    tmp_path: Path,
    stopped_after_two_steps: Callable[[PPOConfig], None],
    changes: dict[str, Any],
    on_disk: ModuleType,
) -> None:
    if "critic" in changes:
        changes = changes | {"critic_model": {"path": str(workshop / "reward_model")}}
    train_ppo(run_config(tiny, workshop, tmp_path / "whole", **changes))
    config = run_config(tiny, workshop, tmp_path / "halves", **changes)
    stopped_after_two_steps(config)
    assert not (tmp_path / "halves" / "policy").exists()
    train_ppo(config)
    whole, halves = on_disk.timeless(tmp_path / "whole"), on_disk.timeless(tmp_path / "halves")
    assert [row["step"] for row in whole] == [1, 2, 3, 4]
    assert halves == whole
    assert len({row["objective/kl_coef"] for row in whole}) == 4, "the coefficient moved"
    assert on_disk.digests(tmp_path / "halves") == on_disk.digests(tmp_path / "whole")
    assert "policy/value_head.safetensors" in on_disk.digests(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "whole" / "samples").iterdir()) == [
        "step-000001.jsonl", "step-000002.jsonl", "step-000004.jsonl",
    ]  # fmt: skip


def test_the_schedule_follows_the_step_through_early_stops(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    config = tiny.ppo_config(workshop, steps=3, target_kl=1e-9, optimizer__schedule="linear", output_dir=str(tmp_path))
    made = tiny.parts(config)
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path)
    metrics = [steps.step(index) for index in range(3)]
    assert [row["updates"] for row in metrics] == [1.0, 1.0, 1.0]
    # 4 updates a step: the first update of each step has index 0, 4, 8 of 12.
    rates = [1e-3 * learning_rate_factor(4 * index, 12, 0.0, "linear") for index in range(3)]
    assert [row["lr/policy"] for row in metrics] == pytest.approx(rates)


def test_steps_draw_their_prompts_in_the_order_of_the_epochs(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, rollout_batch_size=4))
    seen: list[str] = []
    step = made.trainer.step

    def watched(prompts: Any) -> Any:
        seen.extend(prompt.text for prompt in prompts)
        return step(prompts)

    made.trainer.step = watched
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path)
    assert [steps.step(index)["episode"] for index in range(2)] == [4.0, 8.0]
    assert sorted(seen) == sorted(prompt.text for prompt in made.prompts)


def test_a_step_draws_a_prompt_once_for_all_its_samples(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, num_samples_per_prompt=2))
    seen: list[list[str]] = []
    step = made.trainer.step

    def watched(prompts: Any) -> Any:
        seen.append([prompt.text for prompt in prompts])
        return step(prompts)

    made.trainer.step = watched
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path)
    assert [steps.step(index)["episode"] for index in range(2)] == [8.0, 16.0], "eight episodes, four prompts"
    assert [len(prompts) for prompts in seen] == [4, 4]
    assert sorted(seen[0] + seen[1]) == sorted(prompt.text for prompt in made.prompts)


@pytest.mark.slow
def test_a_profile_tells_every_phase_of_a_step_and_changes_nothing_else(
    tiny: ModuleType, workshop: Path, tmp_path: Path, on_disk: ModuleType
) -> None:
    train_ppo(run_config(tiny, workshop, tmp_path / "plain", steps=2))
    train_ppo(run_config(tiny, workshop, tmp_path / "profiled", steps=2), profile=True)
    assert on_disk.digests(tmp_path / "profiled") == on_disk.digests(tmp_path / "plain")
    phases = {"generation", "reward", "reference", "forward", "backward", "optimizer", "other"}
    for row, plain in zip(on_disk.timeless(tmp_path / "profiled"), on_disk.timeless(tmp_path / "plain"), strict=True):
        assert phases <= {name.removeprefix("time/") for name in row if name.startswith("time/")}
        assert {name: row[name] for name in plain} == plain
    content = json.loads((tmp_path / "profiled" / "profile.json").read_text())
    assert phases <= content["phases"].keys() and content["tokens_per_second"] > 0
    working = {name for name, phase in content["phases"].items() if phase["flops"] > 0}
    assert working == {"generation", "reward", "reference", "forward", "backward"}
