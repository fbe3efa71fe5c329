"""The engine of a run: chosen by its section, given the weights of each rollout, corrected and logged."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf.errors import ConfigError, EngineError
from rlhf.ppo import correction, train_ppo
from rlhf.ppo.run.steps import all_metrics


@pytest.mark.slow
@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_ppo_trains_on_what_a_server_draws(
    tiny: ModuleType, workshop: Path, tmp_path: Path, fake: Any, lora: dict[str, int] | None
) -> None:
    section = {"kind": "vllm", "url": fake.url, "retries": 0, "probe_tolerance": 0.01}
    train_ppo(tiny.ppo_config(workshop, output_dir=str(tmp_path), engine=section, model__lora=lora))
    rows = tiny.logged(tmp_path)
    assert len(rows) == 2 and fake.version.endswith("-2")
    for row in rows:
        assert row["val/first_ratio_deviation"] == 0.0 and row["sampling/share_truncated"] == 0.0
        assert 0.0 <= row["sampling/logprob_difference"] < 1e-4
    assert rows[0]["objective/kl"] == 0.0 and rows[1]["objective/kl"] != 0.0


@pytest.mark.slow
def test_a_run_ends_where_the_server_answers_from_old_weights(
    tiny: ModuleType, workshop: Path, tmp_path: Path, fake: Any
) -> None:
    fake.faults = {"stale weights"}
    changes = {"engine": {"kind": "vllm", "url": fake.url}, "optimizer__learning_rate": 0.05}
    with pytest.raises(EngineError, match=r"^(wrong|stale) weights: "):
        train_ppo(tiny.ppo_config(workshop, output_dir=str(tmp_path), **changes))
    assert len(tiny.logged(tmp_path)) == 1


@pytest.mark.slow
def test_importance_weights_scale_the_advantages_and_nothing_else(
    tiny: ModuleType, workshop: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = {"kind": "vllm", "url": fake.url, "correction": "token", "cap": 1.5}
    made = tiny.ppo_trainer(workshop, engine=section, output_dir=workshop / "out")
    sampled = made.rollout([row["prompt"] for row in tiny.prompt_rows(workshop)])
    ppo, scored = made.ppo, made.score(sampled)
    state = ppo.generators.rollout.get_state()
    plain = ppo.make_experience(sampled, scored).experience
    ppo.generators.rollout.set_state(state)
    sampled.engine_logprobs[sampled.responses.response_mask] -= 1.0  # every ratio is e, above the cap
    batch = ppo.make_experience(sampled, scored)
    torch.testing.assert_close(batch.experience.advantages, plain.advantages * 1.5, rtol=1e-3, atol=1e-5)
    assert torch.equal(batch.experience.returns, plain.returns)
    assert batch.correction is not None  # weighed once: the metrics read the same weights
    monkeypatch.setattr(correction, "importance_weights", None)
    metrics = all_metrics(ppo, ppo.learn(batch))
    assert metrics["sampling/share_truncated"] == 1.0
    assert metrics["sampling/logprob_difference"] == pytest.approx(1.0, abs=1e-3)
    assert metrics["sampling/logprob_difference_max"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.slow
def test_a_model_with_states_is_sampled_by_generate_and_the_log_says_so(
    tiny: ModuleType, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    like = AutoConfig.from_pretrained(workshop / "policy")
    sizes = {"vocab_size": like.vocab_size, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
    ids = {"pad_token_id": like.pad_token_id, "eos_token_id": like.eos_token_id, "bos_token_id": like.bos_token_id}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("mamba", **sizes, **ids)).save_pretrained(tmp_path / "mamba")
    tiny.give_tokenizer(tmp_path / "mamba")
    changes = {"model": {"path": str(tmp_path / "mamba"), "precision": "float32"}, "steps": 1}
    train_ppo(tiny.ppo_config(workshop, output_dir=str(tmp_path / "run"), **changes))
    said = "engine: transformers' generate draws the responses: MambaForCausalLM keeps its past in another way"
    assert capsys.readouterr().out.count(said) == 1
    row = tiny.logged(tmp_path / "run")[0]
    assert row["val/first_ratio_deviation"] == 0.0 and "sampling/logprob_difference" not in row


@pytest.mark.slow
def test_generate_draws_what_the_native_decoder_draws(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    rows = []
    for kind in ("native", "generate"):
        train_ppo(tiny.ppo_config(workshop, output_dir=str(tmp_path / kind), engine={"kind": kind}, steps=1))
        rows.append(tiny.logged(tmp_path / kind)[0])
    assert tiny.without_time(rows[0]) == tiny.without_time(rows[1])


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "vllm"}, r"engine.*url"),
        ({"kind": "native", "top_p": 0.9}, "top_p"),
        ({"kind": "tgi"}, "'tgi' found using 'kind' does not match"),
        ({"kind": "vllm", "url": "http://a", "floor": 0.1}, "floor has no effect with correction: token"),
        ({"kind": "vllm", "url": "http://a", "cap": 0.5}, r"must be between floor \(0\) and cap \(0.5\)"),
    ],
)
def test_an_engine_that_cannot_be_meant_is_refused(
    tiny: ModuleType, workshop: Path, section: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        tiny.ppo_config(workshop, engine=section)


def test_a_server_needs_a_directory_for_the_weights(tiny: ModuleType, workshop: Path) -> None:
    with pytest.raises(ConfigError, match="^engine.kind: vllm gets its weights by path - give output_dir$"):
        tiny.ppo_trainer(workshop, engine={"kind": "vllm", "url": "http://127.0.0.1:1"})
