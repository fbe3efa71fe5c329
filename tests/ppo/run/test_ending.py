"""PPO runs that evaluate while they run, end early, or go back after a guard: what is saved, and that it is exact."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf.errors import ConfigError, GuardStop
from rlhf.ppo import train_ppo
from rlhf.ppo.tally import NAMES
from rlhf.ppo.trainer import PPO

EVALUATED = {"eval_every": 1, "best": {"metric": "evaluation/kl", "load_at_end": True}}
ROLLBACK = {"rollback": {"times": 2, "lr_factor": 0.5}}


def trained(tiny: ModuleType, workshop: Path, output: Path, **changes: Any) -> Path:
    settings = {"steps": 3, "optimizer__learning_rate": 1e-2, "optimizer__schedule": "linear", **changes}
    return Path(train_ppo(tiny.ppo_config(workshop, output_dir=str(output), **settings))).parent


def held_out(workshop: Path) -> dict[str, Any]:
    return {"eval_prompts": {"path": str(workshop / "prompts.jsonl"), "limit": 5}, **EVALUATED}


@pytest.fixture(scope="module")
def watched(tiny: ModuleType, workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose first step is its best, since the KL grows; its reward draws from the global generators."""
    return trained(tiny, workshop, tmp_path_factory.mktemp("watched"), reward="noise", **held_out(workshop))


def test_held_out_prompts_are_evaluated_and_the_policy_is_the_best_step(
    watched: Path, workshop: Path, on_disk: ModuleType
) -> None:
    rows = on_disk.metrics(watched)
    assert len(rows) == 3 and all("evaluation/scores" in row and row["best/step"] == 1 for row in rows)
    assert 0.0 != rows[0]["evaluation/kl"] == rows[-1]["best/value"] < rows[-1]["evaluation/kl"]
    masters = load_file(watched / "checkpoints/step-000001/masters.safetensors")
    policy = load_file(watched / "policy/model.safetensors")
    assert policy and all(torch.equal(tensor, masters[f"lm.{name}"]) for name, tensor in policy.items())
    head = load_file(watched / "policy/value_head.safetensors")
    assert all(torch.equal(tensor, masters[f"value_head.{name}"]) for name, tensor in head.items())


@pytest.mark.slow
def test_evaluations_leave_no_trace_in_the_training(
    tiny: ModuleType, workshop: Path, watched: Path, tmp_path: Path, on_disk: ModuleType
) -> None:
    plain = trained(tiny, workshop, tmp_path / "run", reward="noise")
    kept = [
        {name: value for name, value in row.items() if not name.startswith(("evaluation/", "best/"))}
        for row in on_disk.timeless(watched)
    ]
    assert on_disk.timeless(plain) == kept
    assert on_disk.contents(plain / "samples") == on_disk.contents(watched / "samples")


def test_a_resumed_run_chooses_the_same_policy_byte_for_byte(
    tiny: ModuleType,
    workshop: Path,
    watched: Path,
    tmp_path: Path,
    on_disk: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PPO, "step", failing_at(PPO.step, 2, RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            trained(tiny, workshop, tmp_path / "run", reward="noise", **held_out(workshop))
    resumed = trained(tiny, workshop, tmp_path / "run", reward="noise", **held_out(workshop))
    assert on_disk.timeless(resumed) == on_disk.timeless(watched)
    assert on_disk.digests(resumed) == on_disk.digests(watched)


@pytest.mark.slow
def test_a_run_that_reaches_its_kl_is_complete_and_its_schedule_was_that_of_the_whole_run(
    tiny: ModuleType, workshop: Path, tmp_path: Path, on_disk: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = {"kl_control__stop_at_kl": 1e-6, "kl_control__stop_window": 2, "reward": "noise", "steps": 3}
    ended = trained(tiny, workshop, tmp_path / "ended", **stop)
    whole = trained(tiny, workshop, tmp_path / "whole", reward="noise", steps=3)
    rows = on_disk.timeless(ended)
    assert len(rows) == 2 and rows[1]["objective/kl_window"] == rows[1]["objective/kl"] / 2 > 1e-6
    assert [row["lr/policy"] for row in rows] == [row["lr/policy"] for row in on_disk.timeless(whole)[:2]]
    assert "the run ends after step 2 of 3: objective/kl was" in capsys.readouterr().out
    assert (ended / "policy/model.safetensors").is_file() and (ended / "complete.json").is_file()
    before = on_disk.contents(ended)
    trained(tiny, workshop, tmp_path / "ended", **stop)
    assert "complete, nothing to do" in capsys.readouterr().out and on_disk.contents(ended) == before


def failing_at(call: Any, step: int, error: Exception, *, times: int = 99) -> Any:
    """Return a method of PPO that raises at a step, before it does anything, the first few `times`."""
    left = [times]

    def failing(self: PPO, *given: Any, **named: Any) -> Any:
        if self.num_steps == step and left[0]:
            left[0] -= 1
            raise error
        return call(self, *given, **named)

    return failing


def nan_at(step: int, times: int) -> Any:
    """Return a `PPO.loss` whose second microbatch is NaN in a step, so that gradients and a half-done step remain."""
    loss, calls, left = PPO.loss, [0], [times]

    def broken(self: PPO, *given: Any, **named: Any) -> Any:
        value, sums, ratio = loss(self, *given, **named)
        calls[0] += 1
        if self.num_steps == step and left[0] and calls[0] % 2 == 0:
            left[0] -= 1
            sums = sums.clone()
            sums[NAMES.index("policy_loss")] = torch.nan
            return value * torch.nan, sums, ratio
        return value, sums, ratio

    return broken


@pytest.mark.slow
def test_after_a_nan_the_run_goes_back_and_a_kill_after_that_changes_nothing(
    tiny: ModuleType, workshop: Path, tmp_path: Path, on_disk: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"guards": ROLLBACK, "reward": "noise", "checkpoints__every": 1}
    with monkeypatch.context() as patch:
        patch.setattr(PPO, "loss", nan_at(1, times=1))
        straight = trained(tiny, workshop, tmp_path / "straight", **options)
    with monkeypatch.context() as patch:
        patch.setattr(PPO, "loss", nan_at(1, times=1))
        patch.setattr(PPO, "step", failing_at(PPO.step, 2, RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            trained(tiny, workshop, tmp_path / "run", **options)
    resumed = trained(tiny, workshop, tmp_path / "run", **options)
    rows = on_disk.timeless(straight)
    assert [row["step"] for row in rows] == [1, 2, 3] and [row["rollback/count"] for row in rows] == [0, 1, 1]
    plain = on_disk.timeless(trained(tiny, workshop, tmp_path / "plain", **options))
    assert rows[0] == plain[0]
    assert [row["lr/value"] for row in rows[1:]] == [row["lr/value"] / 2 for row in plain[1:]]
    assert rows[1]["objective/scores"] == plain[1]["objective/scores"], "the same prompts, the same random numbers"
    assert on_disk.timeless(resumed) == rows and on_disk.digests(resumed) == on_disk.digests(straight)


@pytest.mark.slow
def test_a_nan_that_always_comes_ends_the_run_with_status_6_after_the_last_rollback(
    tiny: ModuleType, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PPO, "loss", nan_at(1, times=99))
    with pytest.raises(GuardStop, match=r"policy_loss .* went back 2 times; the last good .*step-000001") as caught:
        trained(tiny, workshop, tmp_path / "run", guards=ROLLBACK, checkpoints__every=1)
    assert caught.value.exit_status == 6
    assert not (tmp_path / "run/policy").exists() and not (tmp_path / "run/complete.json").exists()
    assert json.loads((tmp_path / "run/checkpoints/step-000001/course.json").read_text())["lr_factor"] == 0.25


@pytest.mark.slow
def test_from_python_the_history_holds_each_step_once_and_a_stream_is_refused(
    tiny: ModuleType, workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PPO, "loss", nan_at(1, times=1))
    trainer = tiny.ppo_trainer(workshop, guards=ROLLBACK)
    with pytest.raises(ConfigError, match=r"guards.rollback: an iterator of prompts cannot be read again"):
        trainer.train(iter(tiny.prompt_rows(workshop)))
    history = trainer.train(tiny.prompt_rows(workshop))
    assert [row["step"] for row in history] == [1, 2] and [row["rollback/count"] for row in history] == [1, 1]
