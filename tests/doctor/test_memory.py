"""Tests of rlhf.doctor.memory, on a policy whose sizes are counted by hand."""

import shutil

import pytest
from transformers import AutoModelForSequenceClassification

from rlhf.doctor import examination
from rlhf.doctor.examination import assembled
from rlhf.doctor.memory import already_loaded, memory_suffices, to_come
from rlhf.doctor.trial import run_trial


def numel(module) -> int:
    return sum({p.data_ptr(): p.numel() for p in module.parameters()}.values())


def test_full_finetuning_in_float32_is_counted(config, workshop) -> None:
    parts = assembled(config(model_reward=workshop / "reward_model"))
    size = numel(parts.trainer.policy)
    loaded = already_loaded(parts)
    assert loaded.policy == 4 * size
    assert loaded.masters == 0, "float32 weights are their own masters"
    assert loaded.reference == 4 * numel(parts.trainer.policy.lm)
    assert loaded.rewards == 4 * numel(parts.trainer.collector.scorer.rewards[0][0].model)
    coming = to_come(parts, run_trial(parts))
    assert (coming.gradients, coming.moments, coming.kept_states) == (4 * size, 8 * size, 0)
    assert coming.total == 12 * size + max(coming.activations, coming.sampling)


def test_moments_in_8_bits_are_counted_as_they_are(config, monkeypatch) -> None:
    monkeypatch.setattr("rlhf.training.moments.SMALLEST", 64)
    parts = assembled(config(optimizer__moments="8bit"))
    coming, size = to_come(parts, run_trial(parts)), numel(parts.trainer.policy)
    matrices = [
        p.numel() for name, p in parts.trainer.policy.lm.named_parameters() if p.ndim > 1 and "embed" not in name
    ]
    narrow, blocks = sum(matrices), sum(-(-each // 256) for each in matrices)
    assert min(matrices) >= 64 and coming.moments == 8 * (size - narrow) + 2 * narrow + 8 * blocks


def test_every_member_of_an_ensemble_is_counted(config, workshop, tmp_path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(workshop / "reward_model")
    for parameter in model.parameters():  # equal weights would be in memory once
        parameter.data.add_(1.0)
    model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(workshop / "reward_model" / name, tmp_path / name)
    members = [{"path": str(workshop / "reward_model")}, {"path": str(tmp_path)}]
    one = already_loaded(assembled(config(model_reward=workshop / "reward_model"))).rewards
    ensemble = [{"kind": "ensemble", "models": members}]
    assert already_loaded(assembled(config(rewards=ensemble))).rewards == 2 * one > 0


def test_bfloat16_has_masters_and_frozen_layers_are_shared_and_kept(config) -> None:
    parts = assembled(config(model__precision="bfloat16", model__trainable_layers=1))
    lm = parts.trainer.policy.lm
    trained = sum(p.numel() for p in lm.parameters() if p.requires_grad)
    head = numel(parts.trainer.policy.value_head)
    loaded = already_loaded(parts)
    assert loaded.policy == 2 * numel(lm) + 4 * head
    assert loaded.masters == 4 * trained, "frozen weights are held once; the value head is its own master"
    assert loaded.reference == 2 * trained, "frozen weights are shared"
    coming = to_come(parts, run_trial(parts))
    assert coming.gradients == 4 * (trained + head)
    longest = max(len(prompt.ids) for prompt in parts.prompts)
    assert coming.kept_states == 8 * (longest + 5) * lm.config.hidden_size * 2


def test_activations_grow_with_the_microbatch(config) -> None:
    small, large = (
        to_come(parts, run_trial(parts)).activations
        for parts in (assembled(config(microbatch_tokens=tokens)) for tokens in (64, 6400))
    )
    assert large > 50 * small > 0


def test_a_run_that_does_not_fit_fails_and_a_tight_one_is_warned_of(config) -> None:
    parts = assembled(config())
    made = run_trial(parts)
    needed = to_come(parts, made).total
    states = [memory_suffices(parts, made, int(needed * share)).state for share in (0.99, 1.01, 1.24, 1.26, 0)]
    assert states == ["failing", "warning", "warning", "ok", "failing"]


@pytest.mark.parametrize(("available", "state"), [(1000, "failing"), (10**12, "ok")])
def test_the_examination_asks_how_much_is_there(available, state, config, examined, troubles, monkeypatch) -> None:
    monkeypatch.setattr(examination, "available_memory_bytes", lambda device: available)
    assert troubles(examined(config())) == ({} if state == "ok" else {"memory": state})
