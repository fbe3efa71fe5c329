"""Tests of rlhf.ppo.run.traces."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.run.traces import MOST_EPISODES, Tracer, last_ratio
from rlhf.ppo.step_records import StepResult
from rlhf.ppo.trainer import PPO


@pytest.fixture(scope="module")
def trained(tiny: ModuleType, workshop: Path) -> tuple[PPO, StepResult]:
    """A step with resets, large enough steps for some ratios to be clipped."""
    config = tiny.ppo_config(workshop, reset=tiny.reset_section(workshop, 0.5), optimizer={"learning_rate": 0.01})
    made = tiny.parts(config)
    tiny.stir(made.trainer, 0.02)
    return made.trainer, made.trainer.step(made.prompts)


def test_the_numbers_are_those_that_the_step_computed(trained: tuple[PPO, StepResult]) -> None:
    trainer, result = trained
    experience, rollout = result.experience, result.experience.rollout
    traces = Tracer(trainer.collector.tokenizer, trainer.config).traces(result, range(8))
    scores = rollout.episode_scores().tolist()
    assert traces.keys() == {scores.index(max(scores)), scores.index(min(scores))}
    for row, trace in traces.items():
        mask, length = rollout.response_mask[row], len(trace["text"])
        forced = trace["forced"]
        assert length == len(result.collected.episodes[row].response_ids)
        assert forced == int(rollout.forced[row].sum()) and not mask[:forced].any() and mask[forced:length].all()
        expected = {
            "advantage": experience.advantages, "value": rollout.values, "kl": experience.kl,
            "token_score": rollout.token_scores, "surprise": -rollout.logprobs,
        }  # fmt: skip
        for name, tensor in expected.items():
            assert trace[name] == pytest.approx(tensor[row, :length].tolist(), rel=1e-3, abs=1e-12)
        assert set(trace["clipped"]) <= {0.0, 1.0} and not any(trace["clipped"][:forced])


def test_the_ratios_of_all_episodes_are_those_of_the_last_epoch(trained: tuple[PPO, StepResult]) -> None:
    trainer, result = trained
    mask, minibatches = result.experience.rollout.response_mask, trainer.config.minibatches
    ratios = torch.stack([last_ratio(result, row) for row in range(8)])
    assert not ratios[~mask].any() and bool((ratios[mask] > 0).all())
    tokens = sum(len(ratio) for update in result.updates[-minibatches:] for _, ratio in update.ratios)
    mean = sum(float(r.sum()) for update in result.updates[-minibatches:] for _, r in update.ratios) / tokens
    assert tokens == int(mask.sum()) and float(ratios[mask].mean()) == pytest.approx(mean, rel=1e-5)
    first = [ratio for update in result.updates[:1] for _, ratio in update.ratios]
    assert all(bool((ratio == 1).all()) for ratio in first)
    assert not bool((ratios[mask] == 1).all())


def test_each_ratio_belongs_to_its_own_token(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, epochs=2, minibatches=1, optimizer={"learning_rate": 0.01}))
    trainer = made.trainer
    taken = []
    update = trainer.update

    def watched(experience, minibatch, *others):
        logprobs = torch.zeros_like(experience.rollout.logprobs)
        with torch.no_grad():
            for rows in minibatch:
                part = experience.rows(rows).rollout
                logprobs[rows] = trainer.policy(part.sequences(), logprobs.shape[1], 1.0).logprobs
        taken.append(logprobs)
        return update(experience, minibatch, *others)

    trainer.update = watched  # type: ignore[method-assign]
    result = trainer.step(made.prompts)
    rollout = result.experience.rollout
    expected = (taken[-1] - rollout.logprobs).exp() * rollout.response_mask
    found = torch.stack([last_ratio(result, row) for row in range(8)])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_clipped_token_is_one_whose_gradient_the_loss_stopped(tiny: ModuleType, workshop: Path) -> None:
    changes = {"epochs": 2, "minibatches": 1, "clip_range": 0.001, "optimizer": {"learning_rate": 0.01}}
    for further, some in (({}, True), ({"clip_range": None}, False)):
        made = tiny.parts(tiny.ppo_config(workshop, **{**changes, **further}))
        result = made.trainer.step(made.prompts)
        tracer = Tracer(made.trainer.collector.tokenizer, made.trainer.config)
        shares = [tracer._trace(result, row)["clipped"] for row in range(8)]
        share = sum(map(sum, shares)) / sum(map(len, shares))
        assert share == pytest.approx(result.updates[-1].means["clipped"], abs=1e-6) and (share > 0) == some


def test_without_a_critic_there_are_no_values(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, advantage="reward_to_go"))
    result = made.trainer.step(made.prompts)
    traces = Tracer(made.trainer.collector.tokenizer, made.trainer.config).traces(result, range(8))
    assert all("value" not in trace and "advantage" in trace for trace in traces.values())


def test_long_episodes_and_dropped_ones_keep_the_file_small(
    trained: tuple[PPO, StepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, result = trained
    monkeypatch.setattr("rlhf.ppo.run.traces.MOST_TOKENS", 3)
    tracer = Tracer(trainer.collector.tokenizer, trainer.config)
    traces = tracer.traces(result, range(8))
    assert len(traces) == MOST_EPISODES
    for trace in traces.values():
        lengths = {len(value) for value in trace.values() if isinstance(value, list)}
        assert len(lengths) == 1 and max(lengths) <= 3
    assert any(len(trace["text"]) == 3 for trace in traces.values())
    assert tracer.traces(result, []) == {} and len(tracer.traces(result, [0])) == 1
    result.experience.rollout.response_mask[0] = False
    assert tracer.traces(result, [0]) == {}


@pytest.mark.slow
def test_samples_hold_traces_and_the_run_learns_the_same_without_them(
    tiny: ModuleType, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for name in ("with", "without"):
        if name == "without":
            monkeypatch.setattr(Tracer, "traces", lambda self, result, rows: {})
        made = tiny.parts(tiny.ppo_config(workshop))
        steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path / name)
        steps.step(0)
        steps.step(1)
        rows = [json.loads(line) for line in (tmp_path / name / "step-000001.jsonl").read_text().splitlines()]
        assert sum("trace" in row for row in rows) == (2 if name == "with" else 0)
        weights.append({key: value.clone() for key, value in made.trainer.optimizer.weights.masters.items()})
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
