"""Tests of rlhf.doctor.examination, through the command line where a user would see it."""

import json

import pytest
import yaml

from rlhf.cli import main
from rlhf.doctor import examination
from rlhf.errors import ConfigError
from rlhf.training.processes import Processes

NAMES = [
    "pad token",
    "tokenizers",
    "dropout",
    "sampler",
    "chat template",
    "ratio",
    "KL",
    "critic",
    "end of response",
    "same score, rewards[0] (model)",
    "reward scale",
    "exploration, rewards[0] (model)",
    "memory",
]


@pytest.fixture
def written(config, workshop, tmp_path):
    """Write a healthy config, changed, to a file and return the command line."""

    def write(**changes) -> list[str]:
        made = config(output_dir=str(tmp_path / "run"), **changes)
        path = tmp_path / "ppo.yaml"
        path.write_text(yaml.safe_dump(json.loads(made.model_dump_json())))
        return ["doctor", "--config", str(path)]

    return write


def test_a_healthy_config_passes_every_check_and_leaves_nothing_behind(written, workshop, tmp_path, capsys) -> None:
    assert main(written(model_reward=workshop / "reward_model", logging__trackers=["tensorboard"])) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines[1:-1]] == [f"ok       {name}" for name in NAMES]
    assert lines[-1].startswith("13 checks: 13 ok, 0 warning, 0 failing; ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ppo.yaml"]


def test_a_failing_check_ends_with_status_6_and_its_name(written, capsys) -> None:
    assert main([*written(reward="constant"), "seed=1"]) == 6
    captured = capsys.readouterr()
    assert "failing  reward scale: " in captured.out
    assert captured.err == "error: doctor: failing: reward scale - the lines above give causes and fixes\n"


def test_a_warning_ends_with_status_0(written, capsys) -> None:
    assert main(written(reward="noise")) == 0
    assert "warning  same score, rewards[0] (function): " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "status"),
    [("sede=1", 2), ("sampling.max_new_tokens=122", 2), ("prompts.path=missing.jsonl", 3), ("reward", 5)],
)
def test_what_is_broken_otherwise_has_its_own_status(override, status, written) -> None:
    if override == "reward":
        assert main(written(reward="nan")) == status
    else:
        assert main([*written(), override]) == status


def test_several_processes_are_refused(config, monkeypatch) -> None:
    monkeypatch.setattr(Processes, "num", property(lambda self: 2))
    with pytest.raises(ConfigError, match="one process, 2 started"):
        examination.assembled(config())


def test_compiled_blocks_are_left_out(config, monkeypatch) -> None:
    assert examination.assembled(config(compile="on")).trainer.config.compile == "off"


def test_the_rewards_are_closed_even_when_one_fails(config, monkeypatch) -> None:
    closed = []

    def assembled(config):
        parts = real(config)
        monkeypatch.setattr(parts.trainer.collector.scorer, "close", lambda: closed.append(True))
        return parts

    real = examination.assembled
    monkeypatch.setattr(examination, "assembled", assembled)
    with pytest.raises(Exception, match="nan"):
        examination.examine(config(reward="nan"))
    assert closed == [True]
