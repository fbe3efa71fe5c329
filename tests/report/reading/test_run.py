"""Tests of rlhf.report.reading.run and rlhf.report.reading.samples."""

import json

import pytest

from rlhf.errors import ConfigError
from rlhf.report.reading.run import read_run
from rlhf.report.reading.samples import answer_of, text_of


def test_a_recipe_is_read_with_its_stages(planting, tmp_path):
    run = read_run(planting.plant(tmp_path / "mine"))
    assert run.name == "mine" and list(run.stages) == ["ppo", "evaluate"]
    assert run.ppo.is_complete and run.ppo.config["steps"] == 60 and len(run.ppo.metrics.rows) == 60
    assert len(run.ppo.samples) == 13 * 8 and {answer.step for answer in run.ppo.samples} == {1, *range(5, 61, 5)}
    assert list(run.evaluation.answers) == ["sft", "ppo"] and len(run.evaluation.answers["ppo"]) == 16


@pytest.mark.parametrize("stage", ["ppo", "evaluate"])
def test_a_stage_alone_is_known_by_its_configuration(planting, tmp_path, stage):
    assert list(read_run(planting.plant(tmp_path) / stage).stages) == [stage]


@pytest.mark.parametrize(
    ("config", "row", "kind"),
    [
        ("loss_on: all\n", '{"step": 1, "loss": 2.0}', "sft"),
        ("centring_coef: 0.0\n", '{"step": 1, "loss": 2.0}', "reward_model"),
        (None, '{"step": 1, "loss": 2.0, "accuracy": 0.5}', "reward_model"),
        (None, '{"step": 1, "objective/scores": 2.0}', "ppo"),
        (None, '{"step": 1, "loss": 2.0}', "sft"),
    ],
)
def test_every_kind_of_stage_is_known(tmp_path, config, row, kind):
    (tmp_path / "metrics.jsonl").write_text(row + "\n")
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    assert list(read_run(tmp_path).stages) == [kind]


def test_a_directory_without_a_run_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(ConfigError, match=r"no run here: expected metrics\.jsonl or comparison\.json"):
        read_run(tmp_path)
    with pytest.raises(ConfigError, match="no such directory; name the output_dir"):
        read_run(tmp_path / "nowhere")


def test_the_checkpoints_that_are_left_are_known(planting, tmp_path):
    run = planting.plant(tmp_path)
    for name in ("step-000010", "step-000020", "step-000030.tmp-7"):
        (run / "ppo" / "checkpoints" / name).mkdir(parents=True)
    assert read_run(run).ppo.checkpoints == [10, 20]


def test_a_conversation_is_read_with_its_roles():
    prompt = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"content": "Hello"}]}]
    assert text_of(prompt) == "user: Hi\nassistant: : Hello"
    assert text_of(None) == "" and text_of(7) == "7"


def test_a_row_of_another_kind_is_read_as_far_as_it_goes():
    answer = answer_of({"response": "x", "score": None, "kl": "far", "tokens": "many", "trace": [], "ended": 1}, 3)
    assert (answer.score, answer.kl, answer.tokens, answer.trace, answer.ended) == (None, None, None, None, None)
    assert answer.length == 1 and answer.prompt == ""
    assert answer_of({"scores": {"gold": 2, "reward": None}}, None).scores == {"gold": 2.0}


@pytest.mark.parametrize("starts", [5, [5], [{"from_step": "x"}, {"from_step": [1]}, {"from_step": True}]])
def test_starts_of_another_type_are_no_resumed_ones(tmp_path, starts):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    (tmp_path / "circumstances.json").write_text(json.dumps({"starts": starts}))
    assert read_run(tmp_path).stages["sft"].resumed == []
