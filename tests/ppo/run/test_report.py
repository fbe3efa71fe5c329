"""Tests of rlhf.ppo.run.report."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from rlhf.errors import CheckpointError
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.report import sampled_rows, step_metrics, write_samples
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.step_records import StepResult
from rlhf.training.processes import Processes

NAMES = {
    "objective/kl", "objective/kl_per_token", "objective/kl_coef", "objective/scores", "objective/scores_std",
    "objective/raw_scores",
    "objective/rlhf_reward", "objective/non_score_reward", "objective/entropy", "val/num_eos_tokens", "val/share_ended",
    "val/response_length", "val/explained_variance", "val/first_ratio_deviation", "updates", "loss/policy_avg",
    "loss/value_avg", "policy/approxkl_avg", "policy/clipfrac_avg", "val/clipfrac_avg", "val/ratio", "val/ratio_var",
    "val/ratio_max", "lr/policy", "lr/value", "grad_norm/policy", "grad_norm/value",
}  # fmt: skip


@pytest.fixture(scope="module")
def result(tiny: ModuleType, workshop: Path) -> StepResult:
    made = tiny.parts(tiny.ppo_config(workshop, score__missing_eos_penalty=1.0))
    tiny.stir(made.trainer, 0.02)
    return made.trainer.step(made.prompts)


def test_metrics_bear_the_names_that_users_look_for(tiny: ModuleType, workshop: Path, result: StepResult) -> None:
    assert step_metrics(result, Processes()).keys() == NAMES
    made = tiny.parts(tiny.ppo_config(workshop, entropy_coef=0.01))
    metrics = step_metrics(made.trainer.step(made.prompts), Processes())
    assert metrics.keys() == NAMES | {"policy/entropy_avg"}
    assert 0 < metrics["policy/entropy_avg"] < 6.2  # log 488


def test_without_a_critic_there_is_no_metric_of_one(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    of_critic = {"loss/value_avg", "val/clipfrac_avg", "val/explained_variance"}
    for advantage, missing in (("reward_to_go", of_critic), ("baseline", set())):
        made = tiny.parts(tiny.ppo_config(workshop, advantage=advantage))
        metrics = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path / advantage).step(0)
        assert NAMES - metrics.keys() == missing


def test_metrics_agree_with_plain_sums(result: StepResult) -> None:
    metrics, rollout, batch = step_metrics(result, Processes()), result.experience.rollout, result.experience
    mask = rollout.response_mask
    tokens = int(mask.sum())
    per_row = [float(batch.kl[row][mask[row]].sum()) for row in range(8)]
    expected = {
        "objective/kl": sum(per_row) / 8,
        "objective/kl_per_token": sum(per_row) / tokens,
        "objective/scores": float(rollout.scores.mean()),
        "objective/scores_std": float(rollout.scores.std(unbiased=False)),
        "objective/raw_scores": sum(result.collected.raw_scores) / 8,
        "objective/rlhf_reward": float(batch.rewards[mask].sum()) / 8,
        "objective/non_score_reward": -result.kl_coef * sum(per_row) / 8,
        "objective/entropy": -float(rollout.logprobs[mask].mean()),
        "val/num_eos_tokens": int(rollout.ended.sum()),
        "val/share_ended": float(rollout.ended.float().mean()),
        "val/response_length": tokens / 8,
        "val/ratio": sum(update.means["ratio"] for update in result.updates) / 4,
        "val/ratio_max": max(update.ratio_max for update in result.updates),
        "val/first_ratio_deviation": 0.0,
        "updates": 4,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    values, returns = rollout.values[mask], batch.returns[mask]
    assert metrics["val/explained_variance"] == pytest.approx(
        1 - float((returns - values).var(correction=0) / returns.var(correction=0)), abs=1e-4
    )


def test_updates_report_means_over_their_real_tokens(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, minibatches=1))
    trainer, collected = made.trainer, tiny.collected(made)
    batch = tiny.experience(trainer, collected.rollout)
    tiny.stir(trainer, 0.05)
    with torch.no_grad():
        moved = trainer.collector.forward(collected.sequences, _responses(collected), collected.microbatches)[0]
    means = trainer.update(batch, collected.microbatches.all()).means
    log_ratio = (moved - collected.rollout.logprobs)[collected.rollout.response_mask]
    assert means["ratio"] == pytest.approx(float(log_ratio.exp().mean()), rel=1e-4)
    assert means["approx_kl"] == pytest.approx(float(0.5 * log_ratio.square().mean()), rel=1e-4)
    assert means["ratio_square"] == pytest.approx(float(log_ratio.exp().square().mean()), rel=1e-4)


def test_padding_content_changes_no_metric(result: StepResult) -> None:
    rollout = result.experience.rollout
    mask = rollout.response_mask
    dirty = dataclasses.replace(
        rollout,
        response_ids=torch.where(mask, rollout.response_ids, 99),
        **{name: torch.where(mask, getattr(rollout, name), 1e3) for name in ("logprobs", "ref_logprobs", "values")},
    )
    changed = dataclasses.replace(result, experience=dataclasses.replace(result.experience, rollout=dirty))
    assert step_metrics(changed, Processes()) == step_metrics(result, Processes())


def test_the_same_prompts_are_sampled_whenever_they_are_in_a_batch(result: StepResult) -> None:
    prompts = [episode.prompt for episode in result.collected.episodes]
    chosen = sampled_rows(result, 3)
    assert chosen == sorted(chosen) and len(set(chosen)) == 3
    picked = {prompts[row] for row in chosen}
    episodes = result.collected.episodes[::-1]
    turned = dataclasses.replace(result, collected=dataclasses.replace(result.collected, episodes=episodes))
    assert {episodes[row].prompt for row in sampled_rows(turned, 3)} == picked
    assert sampled_rows(result, 100) == list(range(len(prompts)))


def test_samples_hold_what_was_said_and_how_it_was_scored(
    result: StepResult, tmp_path: Path, on_disk: ModuleType
) -> None:
    path = tmp_path / "samples" / "step-000001.jsonl"
    write_samples(result, path, 3)
    rows = on_disk.rows(path)
    assert len(rows) == 3
    for index, row in zip(sampled_rows(result, 3), rows, strict=True):
        episode = result.collected.episodes[index]
        assert row == {
            "prompt": episode.prompt,
            "response": episode.completion,
            "score": float(result.experience.rollout.scores[index]),
            "kl": float(result.experience.kl[index].sum()),
            "ended": bool(result.experience.rollout.ended[index]),
            "tokens": len(episode.response_ids),
        }


def test_samples_that_cannot_be_written_are_a_clear_error(result: StepResult, tmp_path: Path) -> None:
    (tmp_path / "samples").write_text("a file in the way")
    with pytest.raises(CheckpointError, match="step-000001.jsonl: cannot be written") as caught:
        write_samples(result, tmp_path / "samples" / "step-000001.jsonl", 3)
    assert caught.value.exit_status == 4


def _responses(collected: Any) -> Any:
    from rlhf.ppo.responses import Responses

    rollout = collected.rollout
    return Responses(
        response_ids=rollout.response_ids,
        response_mask=rollout.response_mask,
        forced=rollout.forced,
        ended=rollout.ended,
    )
