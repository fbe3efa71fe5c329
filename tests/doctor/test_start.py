"""Tests of rlhf.doctor.start: each broken start, and that nothing else is blamed for it."""

import pytest
import torch


def test_dropout_that_was_left_on_fails_and_nothing_is_sampled(config, examined, troubles) -> None:
    def leave_on(parts) -> None:
        parts.trainer.policy.lm.model.layers[1].self_attn.attention_dropout = 0.1

    findings = examined(config(), leave_on)
    assert troubles(findings) == {"dropout": "failing", "first step": "skipped"}
    assert "policy model.layers.1.self_attn.attention_dropout = 0.1" in findings["dropout"].advice


def test_a_dropout_module_and_training_mode_fail(config, workshop, examined, troubles) -> None:
    def add_module(parts) -> None:
        parts.critic.model.model.layers[0].extra = torch.nn.Dropout(0.2)

    separate = {"critic": "separate", "critic_model": {"path": str(workshop / "reward_model")}}
    findings = examined(config(**separate), add_module)
    assert "critic model.layers.0.extra.p = 0.2" in findings["dropout"].advice
    training = examined(config(), lambda parts: parts.trainer.policy.lm.train())
    assert troubles(training) == {"dropout": "failing", "first step": "skipped"}


def test_a_model_that_computes_otherwise_with_gradients_fails(config, examined, troubles) -> None:
    def shift(module, arguments, output):
        return output + 0.1 * output.roll(1, -1) if torch.is_grad_enabled() else output

    findings = examined(config(), lambda parts: parts.trainer.policy.lm.model.norm.register_forward_hook(shift))
    assert troubles(findings) == {"ratio": "failing"}


def test_a_reference_that_is_not_the_start_fails(config, examined, troubles) -> None:
    def move(parts) -> None:
        with torch.no_grad():
            parts.trainer.collector.reference.model.model.norm.weight[0] += 0.5

    assert troubles(examined(config(), move)) == {"KL": "failing"}


def test_what_differs_by_rounding_alone_is_warned_of(config, examined, troubles) -> None:
    def nudge(parts) -> None:
        with torch.no_grad():
            parts.trainer.collector.reference.model.model.norm.weight[0] *= 1 + 1e-6

    findings = examined(config(), nudge)
    assert troubles(findings) == {"KL": "warning"}
    assert "round" in findings["KL"].advice


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_critic_that_is_not_finite_fails(number, config, examined, troubles) -> None:
    findings = examined(config(), lambda parts: parts.trainer.policy.value_head.linear.bias.data.fill_(number))
    assert troubles(findings) == {"critic": "failing"}
    assert "not finite" in findings["critic"].advice


@pytest.mark.slow
def test_responses_that_never_end_are_warned_of_and_fail_with_a_penalty(config, examined, troubles) -> None:
    endless = examined(config(sampling={"max_new_tokens": 5}))
    assert troubles(endless) == {"end of response": "warning"}
    assert endless["end of response"].measured == "0% of 8 responses end within 5 tokens"
    fined = examined(config(sampling={"max_new_tokens": 5}, score__missing_eos_penalty=1.0))
    assert troubles(fined) == {"end of response": "failing"}


@pytest.mark.slow
def test_lora_and_partly_frozen_policies_are_well(config, examined, troubles) -> None:
    assert troubles(examined(config(model__lora={"r": 2}))) == {}
    assert troubles(examined(config(model__trainable_layers=1))) == {}
