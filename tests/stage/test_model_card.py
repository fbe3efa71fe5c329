"""The card beside a saved model: data, recipe, figures, limits, and nothing that a model wrote as markup."""

import json
import re
from types import SimpleNamespace

import pytest
import torch
import yaml

from rlhf.config import PPOConfig, RewardModelConfig, SftConfig
from rlhf.stage.frame import Frame
from rlhf.stage.model_card import Card

WILD = "</td><script>x</script> | **b**\n# Title\n![p](http://e.example/p.png) \x1b[2J"


def frame(config, directory, data=()):
    found = SimpleNamespace(metrics=directory / "metrics.jsonl", samples=directory / "samples")
    return Frame(config, SimpleNamespace(), found, torch.float32, data=list(data))


def ppo(tmp_path, **changes):
    given = {
        "output_dir": str(tmp_path / "secret-user" / "ppo"),
        "model": {"path": "HuggingFaceTB/SmolLM2-135M"},
        "prompts": {"path": str(tmp_path / "secret-user" / "prompts.jsonl")},
        "rewards": [{"kind": "repetition", "weight": 2.0}],
        "steps": 7,
        "gamma": 0.875,
    }
    return PPOConfig(**(given | changes))


def front(text):
    begin, matter, _ = text.split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(matter)


@pytest.fixture
def run(tmp_path):
    """A PPO run with metrics and samples."""
    (tmp_path / "samples").mkdir()
    rows = [{"prompt": WILD, "response": WILD + "long " * 200}] * 5
    (tmp_path / "samples" / "step-000003.jsonl").write_text('{"prompt": "earlier", "response": "earlier"}\n')
    (tmp_path / "samples" / "step-000007.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = [{"step": 1, "objective/scores": 9.0}, {"step": 7, "objective/scores": 1.5, "seconds": 123.25}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    config = ppo(tmp_path)
    return frame(config, tmp_path, [f"{config.prompts.path} [prompt]: 12 of 13 rows"])


def test_the_front_matter_names_what_the_hub_knows(run):
    found = front(Card.of(run).text("ppo", "HuggingFaceTB/SmolLM2-135M"))
    assert found == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "HuggingFaceTB/SmolLM2-135M",
        "tags": ["rlhf", "ppo"],
    }


def test_a_base_and_data_on_this_disk_are_told_but_no_names_of_the_hub(tmp_path):
    (tmp_path / "sft" / "policy").mkdir(parents=True)
    config = SftConfig(
        output_dir="x", model={"path": str(tmp_path / "sft" / "policy")}, data={"path": "data/d.jsonl"}, steps=1
    )
    text = Card.of(frame(config, tmp_path)).text("sft", "", is_adapter=True)
    assert front(text) == {"library_name": "peft", "pipeline_tag": "text-generation", "tags": ["rlhf", "sft"]}
    assert "It started from sft/policy, and" in text and str(tmp_path) not in text


def test_data_of_the_hub_are_named(tmp_path):
    config = RewardModelConfig(output_dir="x", model={"path": "fetch:smollm2"}, data={"path": "user/pairs"}, steps=1)
    assert front(Card.of(frame(config, tmp_path)).text("reward-model", ""))["datasets"] == ["user/pairs"]


def test_recipe_data_and_figures_are_there_without_directories_dates_and_times(run, tmp_path):
    text = Card.of(run).text("ppo", "")
    assert "- prompts.jsonl [prompt]: 12 of 13 rows" in text
    assert "    gamma: 0.875" in text and "      kind: repetition" in text and "gae_lambda" not in text
    assert "| objective/scores | 1.5 |" in text and "at its last step (7)" in text
    assert "seconds" not in text and "123" not in text and "output_dir" not in text
    assert str(tmp_path) not in text and "secret-user" not in text
    assert "A higher score is no proof of better answers" in text and "licences" in text


def test_what_the_policy_wrote_stays_text_in_one_table(run):
    text = Card.of(run).text("ppo", "")
    rows = [line for line in text.splitlines() if "script" in line]
    assert len(rows) == 3 and "earlier" not in text
    for row in rows:
        assert "<script>" not in row and r"\|" in row and "![p](" not in row and "://" not in row and "\x1b" not in row
        assert len(re.findall(r"(?<!\\)\|", row)) == 3
        assert len(row) < 1200
    assert "\n# Title" not in text


def test_the_best_step_is_named_where_its_weights_were_kept(tmp_path):
    text = Card(run=frame(ppo(tmp_path), tmp_path), last={"step": 9.0, "best/step": 4.0}).text("ppo", "")
    assert "at its last step (9)" in text and "The weights are those of step 4." in text


def test_a_run_without_rows_says_so(tmp_path):
    text = Card(run=frame(ppo(tmp_path), tmp_path), last={}).text("critic", "")
    assert text.count("Not recorded.") == 2 and "## Samples" not in text


def test_a_card_shows_a_bounded_number_of_figures(tmp_path):
    last = {"step": 9.0, **{f"metric/{number:02d}": float(number) for number in range(40)}}
    text = Card(run=frame(ppo(tmp_path), tmp_path), last=last).text("ppo", "")
    assert text.count("| metric/") == 24 and "| metric/23 | 23 |" in text


def test_of_directories_in_each_other_no_part_is_left(tmp_path):
    outer = tmp_path / "home"
    changes = {"output_dir": str(outer / "x"), "prompts": {"path": str(outer / "deep" / "er" / "p.jsonl")}}
    text = Card.of(frame(ppo(tmp_path, **changes), tmp_path)).text("ppo", "")
    assert "path: p.jsonl" in text and "deep" not in text


@pytest.mark.parametrize(
    "path", ["./pairs", "~/pairs", ".hidden/pairs", "user/pairs/more", "user/p.jsonl", "pairs:x/y"]
)
def test_what_may_be_a_path_is_no_data_set_of_the_hub(tmp_path, path):
    config = RewardModelConfig(output_dir="x", model={"path": "fetch:smollm2"}, data={"path": path}, steps=1)
    assert "datasets" not in front(Card.of(frame(config, tmp_path)).text("reward-model", ""))
