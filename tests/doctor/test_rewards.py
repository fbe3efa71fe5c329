"""Tests of rlhf.doctor.rewards."""

import pytest

from rlhf.models.passes.anatomy import hidden_states
from rlhf.models.scalar import ScalarModel

FUNCTIONS = """
def ranks(completions):
    order = sorted(completions)
    return [float(order.index(c)) for c in completions]
def only_batches(completions):
    if len(completions) < 2:
        raise ValueError("no batch")
    return [float(len(c)) for c in completions]
def odd(prompts, completions):
    return [float("nan") if index % 2 else 7.0 + len(c) for index, c in enumerate(completions)]
def same(completions):
    return [float("nan") if index % 2 else 7.0 for index, _ in enumerate(completions)]
def tokens(completion_ids):
    return [[float(index) for index, _ in enumerate(ids)] for ids in completion_ids]
"""
SAME = "same score, rewards[0] (function)"


@pytest.fixture
def functions(tmp_path) -> str:
    path = tmp_path / "functions.py"
    path.write_text(FUNCTIONS)
    return str(path)


def named(functions: str, name: str) -> list[dict[str, str]]:
    return [{"kind": "function", "path": f"{functions}:{name}"}]


@pytest.mark.slow
def test_a_model_that_pools_over_its_padding_fails(config, workshop, examined, troubles, monkeypatch) -> None:
    def pooled(self, input_ids, mask):
        return self.classifier.score(hidden_states(self.classifier, input_ids).mean(1)).squeeze(-1)

    monkeypatch.setattr(ScalarModel, "forward", pooled)
    findings = examined(config(model_reward=workshop / "reward_model"))
    assert troubles(findings) == {"same score, rewards[0] (model)": "failing"}
    assert "reads its padding" in findings["same score, rewards[0] (model)"].advice


def test_a_model_that_reads_one_padded_place_fails_by_the_padding_alone(
    config, workshop, examined, troubles, monkeypatch
) -> None:
    """What is read is the same in every batch of the scorer, which pads with 0; another padding tells."""
    plain = ScalarModel.forward

    def peeking(self, input_ids, mask):
        strange = ((input_ids != 0) & ~mask).any(1)
        return plain(self, input_ids, mask) + strange.float()

    monkeypatch.setattr(ScalarModel, "forward", peeking)
    findings = examined(config(model_reward=workshop / "reward_model"))
    assert troubles(findings) == {"same score, rewards[0] (model)": "failing"}
    assert findings["same score, rewards[0] (model)"].measured.endswith("with other padding 1")


def test_a_function_that_ranks_its_batch_is_warned_of(config, functions, examined, troubles) -> None:
    findings = examined(config(rewards=named(functions, "ranks")))
    assert troubles(findings) == {SAME: "warning"}
    assert "depends on the others" in findings[SAME].advice


def test_a_function_of_chance_is_warned_of(config, examined, troubles) -> None:
    assert troubles(examined(config(reward="noise"))) == {SAME: "warning"}


def test_a_function_that_refuses_a_single_episode_is_warned_of(config, functions, examined, troubles) -> None:
    findings = examined(config(rewards=named(functions, "only_batches")))
    assert troubles(findings) == {SAME: "warning"}
    assert "no batch" in findings[SAME].advice


@pytest.mark.slow
def test_each_reward_is_asked_on_its_own(config, workshop, functions, examined, troubles) -> None:
    rewards = [{"kind": "model", "path": str(workshop / "reward_model")}, *named(functions, "ranks")]
    findings = examined(config(rewards=rewards))
    assert troubles(findings) == {"same score, rewards[1] (function)": "warning"}
    assert findings["same score, rewards[0] (model)"].state == "ok"


def test_equal_scores_fail(config, examined, troubles) -> None:
    findings = examined(config(reward="constant"))
    assert troubles(findings) == {"reward scale": "failing"}
    assert "all 8 scores are equal" in findings["reward scale"].advice


@pytest.mark.parametrize(("kl_coef", "advice"), [(100.0, "lower kl_coef"), (1e-6, "raise kl_coef"), (0.0, "")])
def test_a_penalty_that_does_not_fit_the_scores_is_warned_of(kl_coef, advice, config, examined, troubles) -> None:
    findings = examined(config(kl_coef=kl_coef))
    assert troubles(findings) == ({"reward scale": "warning"} if advice else {})
    assert advice in findings["reward scale"].advice


def test_a_controller_names_the_typical_kl_itself(config, examined) -> None:
    made = config(kl_control={"controller": "adaptive", "target": 3.0}, kl_coef=0.5)
    assert "kl_coef x 3 nats is 1.5" in examined(made)["reward scale"].measured


def test_a_reward_that_may_fail_is_warned_of_with_what_it_says(config, functions, examined, troubles) -> None:
    findings = examined(config(rewards=[{**named(functions, "odd")[0], "on_nan": "drop_episode"}]))
    assert troubles(findings) == {SAME: "warning"}
    assert "score 1 is nan" in findings[SAME].advice and "on_nan" in findings[SAME].advice


def test_dropped_episodes_have_no_part_in_the_scale_of_scores(config, functions, examined) -> None:
    findings = examined(config(rewards=[{**named(functions, "same")[0], "on_nan": "drop_episode"}]))
    scale = findings["reward scale"]
    assert "mean 7 and standard deviation 0" in scale.measured
    assert scale.state == "failing" and "all 4 scores are equal" in scale.advice
    assert "of 4 responses" in findings["end of response"].measured


def test_scores_of_single_tokens_have_a_scale(config, functions, examined) -> None:
    scale = examined(config(rewards=named(functions, "tokens")))["reward scale"]
    assert scale.state != "failing" and "mean 0 " not in scale.measured
