"""Tests of training again: a finished run is taken up, a longer one goes on from it, and the same trainer goes on."""

import os
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf import Callback, Trainer
from rlhf.errors import CheckpointError, ConfigError, RewardError, Terminated
from rlhf.ppo import train_ppo

TUNING: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"model": {"lora": {"r": 2, "dropout": 0.3}}},
    "last blocks in bfloat16": {"model": {"trainable_layers": 1, "precision": "bfloat16"}},
    "lora in bfloat16": {"model": {"lora": {"r": 2}, "precision": "bfloat16"}},
    "quantized in bfloat16": {"model": {"lora": {"r": 2}, "quantize": "nf4", "precision": "bfloat16"}},
}
STEADY = {"optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.0, "schedule": "constant"}}
COMPLETE = "complete, nothing to do"
LONGER = "steps: 4 -> 8: after step {} the learning rate, and what else has a schedule, follows that of the longer run"


def weights(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("*.safetensors")}


@pytest.mark.sweep
@pytest.mark.parametrize("tuning", TUNING)
def test_a_cell_that_is_run_again_takes_up_the_finished_model_and_its_history(
    both: Any, workshop: Path, tmp_path: Path, tuning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "quantized" in tuning:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install 'rlhf-ppo[quantized]'")

    def cell() -> Any:
        made = both.make(workshop / "policy", output_dir=tmp_path / "run", **TUNING[tuning])
        both.train(made)
        return made

    first = cell()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert COMPLETE not in capsys.readouterr().out
    again = cell()
    assert f"{tmp_path / 'run'}: {COMPLETE}" in capsys.readouterr().out
    assert again.history == first.history and len(again.history) == 4
    assert before == {path: path.stat().st_mtime_ns for path in before}
    if (
        both.name == "sft" or "lora in bfloat16" != tuning != "quantized in bfloat16"
    ):  # there the sum is rounded once, as in any later stage
        assert again.evaluate(both.heldout) == pytest.approx(first.evaluate(both.heldout), abs=1e-6)
    for made, name in ((first, "first"), (again, "again")):
        made.save(tmp_path / name)
    saved = [load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("first", "again")]
    for name, tensor in saved[0].items():
        assert torch.allclose(tensor, saved[1][name], rtol=0, atol=1e-6), name


@pytest.mark.slow
def test_a_finished_run_goes_on_when_it_is_made_longer(
    both: Any, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**STEADY, "checkpoints": {"every": 3}}
    both.train(both.make(workshop / "policy", output_dir=tmp_path / "whole", steps=8, **settings))
    both.train(both.make(workshop / "policy", output_dir=tmp_path / "run", **settings))
    longer = both.make(workshop / "policy", output_dir=tmp_path / "run", steps=8, **settings)
    assert [row["step"] for row in both.train(longer)] == [4, 5, 6, 7, 8]
    assert LONGER.format(3) in capsys.readouterr().out
    assert weights(tmp_path / "run" / both.result) == weights(tmp_path / "whole" / both.result)
    with pytest.raises(CheckpointError, match=r"a run with another config \(steps: 8 -> 4\)"):
        both.train(both.make(workshop / "policy", output_dir=tmp_path / "run", **settings))
    other = {**settings, "optimizer": {**settings["optimizer"], "learning_rate": 2e-3}}
    with pytest.raises(CheckpointError, match=r"\(optimizer.learning_rate: 0.001 -> 0.002, steps: 8 -> 9\)"):
        both.train(both.make(workshop / "policy", output_dir=tmp_path / "run", steps=9, **other))


@pytest.mark.sweep
def test_epochs_make_a_run_longer_too(both: Any, workshop: Path, tmp_path: Path) -> None:
    rows = [both.training.read_text().splitlines()[place] for place in range(32)]
    short = tmp_path / "short.jsonl"
    short.write_text("\n".join(rows) + "\n")
    settings = {**STEADY, "steps": None, "checkpoints": {"every": 1}}
    for epochs, expected in ((2, [1, 2, 3, 4]), (3, [4, 5, 6])):
        made = both.make(workshop / "policy", output_dir=tmp_path / "run", epochs=epochs, **settings)
        assert [row["step"] for row in made.train(str(short))] == expected


@pytest.mark.sweep
def test_without_a_checkpoint_a_finished_run_is_not_begun_anew(both: Any, workshop: Path, tmp_path: Path) -> None:
    both.train(both.make(workshop / "policy", output_dir=tmp_path))
    before = weights(tmp_path / both.result)
    longer = both.make(workshop / "policy", output_dir=tmp_path, steps=8)
    with pytest.raises(CheckpointError, match=r"shorter run \(steps: 4 -> 8\), and no checkpoint to go on from"):
        both.train(longer)
    assert weights(tmp_path / both.result) == before and (tmp_path / "complete.json").is_file()
    assert longer.config.steps == 8


@pytest.mark.slow
@pytest.mark.parametrize("tuning", TUNING)
def test_the_same_trainer_goes_on_with_as_many_steps_again(
    both: Any, workshop: Path, tmp_path: Path, tuning: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**STEADY, **TUNING[tuning]}
    both.train(both.make(workshop / "policy", output_dir=tmp_path / "whole", steps=8, **settings))
    made = both.make(workshop / "policy", output_dir=tmp_path / "run", **settings)
    both.train(made)
    assert "->" not in capsys.readouterr().out
    assert [row["step"] for row in both.train(made)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert LONGER.format(4) in capsys.readouterr().out and made.config.steps == 8
    assert weights(tmp_path / "run" / both.result) == weights(tmp_path / "whole" / both.result)
    again = both.make(workshop / "policy", output_dir=tmp_path / "run", steps=8, **settings)
    assert both.train(again) == made.history and COMPLETE in capsys.readouterr().out
    made = both.make(workshop / "policy", **settings)  # and without a directory
    both.train(made)
    both.train(made)
    made.save(tmp_path / "memory")
    assert weights(tmp_path / "memory") == weights(tmp_path / "whole" / both.result)


@pytest.mark.slow
def test_what_was_taken_up_goes_on_from_its_checkpoint(sft: Any, workshop: Path, tmp_path: Path) -> None:
    settings = {**STEADY, "checkpoints": {"every": 3}}
    sft.train(sft.make(workshop / "policy", output_dir=tmp_path / "whole", steps=8, **settings))
    sft.train(sft.make(workshop / "policy", output_dir=tmp_path / "run", **settings))
    made = sft.make(workshop / "policy", output_dir=tmp_path / "run", **settings)
    sft.train(made)
    assert [row["step"] for row in sft.train(made)] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert weights(tmp_path / "run" / sft.result) == weights(tmp_path / "whole" / sft.result)


@pytest.mark.slow
def test_an_adapter_that_was_merged_does_not_go_on(reward_model: Any, workshop: Path, tmp_path: Path) -> None:
    settings = {"model": {"lora": {"r": 2}}, "checkpoints": {"every": 3}}
    for _ in range(2):
        made = reward_model.make(workshop / "policy", output_dir=tmp_path, **settings)
        reward_model.train(made)
    with pytest.raises(ConfigError, match="the adapter of a finished run was merged - make another trainer"):
        reward_model.train(made)


class Interrupts(Callback):
    def on_step(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.sweep
def test_an_interrupted_trainer_does_the_steps_that_are_left(both: Any, workshop: Path, tmp_path: Path) -> None:
    both.train(both.make(workshop / "policy", output_dir=tmp_path / "whole"))
    made = both.make(workshop / "policy", output_dir=tmp_path / "run", callbacks=[Interrupts()])
    with pytest.raises(Terminated):
        both.train(made)
    assert [row["step"] for row in made.history] == [1, 2]
    assert [row["step"] for row in both.train(made)] == [1, 2, 3, 4] and made.config.steps == 4
    assert weights(tmp_path / "run" / both.result) == weights(tmp_path / "whole" / both.result)


class Fails(Callback):
    def on_step(self, trainer: Trainer, step: int, metrics: dict[str, float]) -> None:
        raise KeyError("my own mistake")


def test_a_trainer_that_failed_inside_a_run_does_not_go_on(both: Any, workshop: Path) -> None:
    made = both.make(workshop / "policy", callbacks=[Fails()])
    with pytest.raises(KeyError):
        both.train(made)
    with pytest.raises(ConfigError, match="its last call ended with an error, maybe inside a step - make another"):
        both.train(made)


PPO: dict[str, dict[str, Any]] = {
    "plain": {},
    "lora in bfloat16": {"model__lora": {"r": 2}, "model__precision": "bfloat16"},
    "separate critic": {"critic": "separate"},
    "annealed resets": {"reset": {"cut": {"law": "annealed", "until": 0.8}}},
}
EACH_PPO = pytest.mark.parametrize("case", PPO)


def make_ppo(tiny: ModuleType, workshop: Path, case: str, **more: Any) -> Any:
    changes = {"value_optimizer__schedule": "constant", "value_optimizer__warmup_fraction": 0.0, **PPO[case], **more}
    if "reset" in changes:
        changes["reset"] = tiny.reset_section(workshop, 0.5, **changes["reset"])
    return tiny.ppo_trainer(workshop, **{**changes, **(tiny.separate(workshop) if "critic" in changes else {})})


@pytest.mark.slow
@EACH_PPO
def test_ppo_takes_up_a_finished_run(
    tiny: ModuleType, workshop: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tiny.prompt_rows(workshop)
    made = []
    for _ in range(2):
        made.append(make_ppo(tiny, workshop, case, output_dir=tmp_path / "run"))
        made[-1].train(prompts)
    assert COMPLETE in capsys.readouterr().out
    first, again = made
    assert again.history == first.history and again.ppo.num_steps == 2
    tiny.assert_equal(tiny.policy_state(first), tiny.policy_state(again))
    assert again.evaluate(prompts) == first.evaluate(prompts)
    with pytest.raises(ConfigError, match="all 2 steps of the config are done"):
        again.update(again.make_experience(rollout := again.rollout(prompts), again.score(rollout)))


@pytest.mark.slow
@EACH_PPO
def test_ppo_goes_on_from_a_finished_run_and_with_the_same_trainer(
    tiny: ModuleType, workshop: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tiny.prompt_rows(workshop)
    whole = make_ppo(tiny, workshop, case, steps=4, checkpoints__every=1, output_dir=tmp_path / "whole")
    whole.train(prompts)
    same = make_ppo(tiny, workshop, case, output_dir=tmp_path / "same")
    same.train(prompts)
    assert [row["step"] for row in same.train(prompts)] == [1, 2, 3, 4] and same.config.steps == 4
    assert "steps: 2 -> 4: after step 2 the learning rate" in capsys.readouterr().out
    make_ppo(tiny, workshop, case, checkpoints__every=1, output_dir=tmp_path / "run").train(prompts)
    longer = make_ppo(tiny, workshop, case, steps=4, checkpoints__every=1, output_dir=tmp_path / "run")
    assert [row["step"] for row in longer.train(prompts)] == [2, 3, 4]
    assert "steps: 2 -> 4: after step 1 the learning rate" in capsys.readouterr().out
    if case != "annealed resets":  # there the first steps are those of a shorter run
        tiny.assert_equal(tiny.policy_state(whole), tiny.policy_state(same))
        tiny.assert_equal(tiny.policy_state(whole), tiny.policy_state(longer))


@pytest.mark.slow
def test_the_rest_of_a_longer_run_follows_its_own_schedule(tiny: ModuleType, workshop: Path) -> None:
    prompts, options = tiny.prompt_rows(workshop), {"optimizer__schedule": "linear", "epochs": 1, "minibatches": 1}
    made = tiny.ppo_trainer(workshop, **options)
    made.train(prompts)
    made.train(prompts)
    rates = [row["lr/policy"] for row in made.history]
    assert rates == pytest.approx([1e-3, 0.5e-3, 0.5e-3, 0.25e-3])


@pytest.mark.slow
def test_a_longer_schedule_holds_for_annealed_resets_too(tiny: ModuleType, workshop: Path) -> None:
    made = make_ppo(tiny, workshop, "annealed resets")
    made.train(tiny.prompt_rows(workshop))
    assert made.ppo.resets.num_steps == 2
    made.train(tiny.prompt_rows(workshop))
    assert made.ppo.resets.num_steps == made.config.steps == made.ppo.config.steps == 4


@pytest.mark.slow
def test_a_stream_goes_on_with_the_prompts_of_the_next_step(tiny: ModuleType, workshop: Path) -> None:
    prompts = [f"{tiny.BEGINNINGS[place % 8]} {place}" for place in range(32)]
    whole, made = make_ppo(tiny, workshop, "plain", steps=4), make_ppo(tiny, workshop, "plain")
    whole.train(iter(prompts))
    for part in (prompts[:16], prompts[16:]):
        made.train(iter(part))
    tiny.assert_equal(tiny.policy_state(whole), tiny.policy_state(made))


@pytest.mark.slow
def test_a_loop_of_ones_own_and_train_may_take_turns(tiny: ModuleType, workshop: Path) -> None:
    prompts = tiny.prompt_rows(workshop)
    whole, made = tiny.ppo_trainer(workshop), tiny.ppo_trainer(workshop)
    whole.train(prompts)
    rollout = made.rollout(next(made.batches(prompts)))
    made.update(made.make_experience(rollout, made.score(rollout)))
    assert [row["step"] for row in made.train(prompts)] == [1, 2]
    tiny.assert_equal(tiny.policy_state(whole), tiny.policy_state(made))


@pytest.mark.slow
def test_more_epochs_of_ppo_are_another_run_and_not_a_longer_one(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    def make(**more: Any) -> Any:
        return tiny.ppo_trainer(workshop, output_dir=tmp_path / "run", checkpoints__every=1, **more)

    make(kl_coef=0.05).train(tiny.BEGINNINGS)
    for changes, named in (({"epochs": 3}, "epochs: 2 -> 3"), ({"kl_coef": 0.1}, "kl_coef: 0.05 -> 0.1")):
        with pytest.raises(CheckpointError, match=rf"a run with another config \({named}\)"):
            make(**changes).train(tiny.BEGINNINGS)


@pytest.mark.slow
def test_a_ppo_stage_goes_on_when_it_is_made_longer(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    def run(name: str, steps: int) -> dict[str, bytes]:
        steady = {"value_optimizer": {"learning_rate": 1e-3, "schedule": "constant", "warmup_fraction": 0.0}}
        config = tiny.ppo_config(workshop, output_dir=str(tmp_path / name), steps=steps, checkpoints__every=1, **steady)
        return weights(train_ppo(config))

    run("run", 2)
    assert run("run", 4) == run("whole", 4)
    assert [row["step"] for row in tiny.logged(tmp_path / "run")] == [1, 2, 3, 4]
    with pytest.raises(CheckpointError, match=r"\(steps: 4 -> 3\)"):
        run("run", 3)


def test_a_reward_that_fails_ends_the_trainer(tiny: ModuleType, workshop: Path) -> None:
    def fails(completions: list[str], **columns: Any) -> list[float]:
        raise ValueError("no")

    made = tiny.ppo_trainer(workshop, fails)
    for error, message in ((RewardError, "no"), (ConfigError, "its last call ended with an error")):
        with pytest.raises(error, match=message):
            made.train(tiny.BEGINNINGS)
