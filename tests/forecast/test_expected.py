import json
from pathlib import Path

import pytest
import torch

from rlhf.forecast import expected, forecast_of
from rlhf.forecast.expected import expected_of
from rlhf.forecast.speed import Speed
from rlhf.stage.frame import fingerprint
from rlhf.training.storage.run_directory import RunDirectory


@pytest.fixture(autouse=True)
def speeds(monkeypatch):
    """The measurements that are asked for: matrix, rows, type."""
    asked = []

    def measured(*arguments):
        asked.append(arguments)
        return Speed(rate=1e9, float32=1e9, num_bytes=4, cores=2)

    monkeypatch.setattr(expected, "measured", measured)
    return asked


def finish(config):
    with RunDirectory(Path(config.output_dir), fingerprint=fingerprint(config, [])) as directory:
        directory.mark_complete()


@pytest.mark.slow
def test_every_stage_of_a_recipe_has_a_time_before_any_has_run(recipe, speeds):
    found = expected_of(recipe())
    assert list(found) == ["sft", "reward_model", "ppo", "evaluate"]
    assert all(each.seconds > 0 and each.reason == "" for each in found.values())
    assert len(speeds) == 1 and speeds[0][1:] == (512, torch.float32)  # once for the type, at SFT's microbatches


@pytest.mark.slow
def test_complete_stages_are_left_out_of_the_sum(recipe):
    run = recipe()
    finish(run.sft)
    finish(run.ppo)
    assert list(expected_of(run)) == ["reward_model", "evaluate"]
    assert "sft" not in forecast_of(run).opening()[0]
    assert list(expected_of(recipe("sft.batch_size=2"))) == ["sft", "reward_model", "evaluate"]


def test_stages_without_a_section_have_no_time(recipe):
    assert list(expected_of(recipe("ppo=null", "evaluate=null"))) == ["sft", "reward_model"]


@pytest.mark.slow
def test_twice_the_steps_are_twice_the_work(recipe):
    times = [expected_of(recipe(f"ppo.steps={steps}"))["ppo"].seconds for steps in (100, 200, 300)]
    assert times[2] - times[1] == pytest.approx(times[1] - times[0], rel=0.05)


@pytest.mark.slow
def test_a_reward_whose_time_nobody_knows_is_named(recipe):
    rewards = "[{kind: function, path: 'my.py:score'}, {kind: length, at_most: 5}, {kind: http, url: 'http://x/y'}]"
    found = expected_of(recipe(f"ppo.rewards={rewards}"))["ppo"]
    assert found.seconds > 0 and found.reason == "without its rewards score, http, whose time nobody knows"


def test_a_model_that_was_not_downloaded_leaves_the_stages_untold_that_need_it(recipe):
    found = expected_of(
        recipe("sft.model.path=org/model", "sft.model.random_init=false", "reward_model=null", "ppo=null")
    )
    assert {name: (each.seconds, each.reason) for name, each in found.items()} == {
        "sft": (None, "org/model is not on this machine yet"),
        "evaluate": (None, "org/model is not on this machine yet"),
    }


def test_a_row_that_the_stage_will_refuse_is_a_reason_and_no_error(recipe, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"text": 3}) + "\n")
    found = expected_of(recipe(f"sft.data.path={path}"))["sft"]
    assert found.seconds is None and found.reason.startswith(f"{path}:1")


def test_no_time_is_told_for_a_gpu(recipe, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert {(each.seconds, each.reason) for each in expected_of(recipe()).values()} == {
        (None, "times are forecast for CPUs alone")
    }


def test_rules_that_end_a_stage_before_its_last_step_are_told(recipe):
    found = expected_of(recipe("ppo.kl_control.stop_at_kl=8", "sft.best.metric=loss", "sft.early_stopping.patience=2"))
    assert {name: each.may_end_early for name, each in found.items()} == {
        "sft": True, "reward_model": False, "ppo": True, "evaluate": False
    }  # fmt: skip
