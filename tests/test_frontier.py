"""Tests of rlhf.frontier: over-optimisation along a tiny PPO run."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.cli import main
from rlhf.ppo import train_ppo

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def run(tiny: ModuleType, workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PPO run of three steps with checkpoints after the first two."""
    directory = tmp_path_factory.mktemp("run") / "ppo"
    train_ppo(tiny.ppo_config(workshop, output_dir=str(directory), checkpoints={"every": 1}, steps=3))
    return directory


def arguments(run: Path, workshop: Path, output: Path) -> list[str]:
    return [
        "evaluate", "--frontier", str(run), f"output_dir={output}", f"prompts.path={DATA}/heldout_prompts.jsonl",
        f"reward_model={workshop}/reward_model", "decoding.max_new_tokens=6", "precision=float32", "best_of.n=4",
        "best_of.policy=start", "judges.brief.kind=length", "judges.brief.at_most=3",
    ]  # fmt: skip


def test_every_checkpoint_and_the_best_of_n_are_scored_fitted_and_drawn(
    run: Path, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(run, workshop, tmp_path / "evaluate")) == 0
    place = tmp_path / "evaluate" / "frontier"
    found = json.loads((place / "frontier.json").read_text())
    assert [(point["name"], point["number"]) for point in found["points"]] == [
        ("step-000001", 1), ("step-000002", 2), ("policy", None), ("best of 2", 2), ("best of 4", 4),
    ]  # fmt: skip
    assert found["gold_judge"] == "brief" and found["num_prompts"] == 16
    gold = {point["name"]: point["gold"]["mean"] for point in found["points"] if point["kind"] == "ppo"}
    assert gold[found["best"]] == max(gold.values())
    assert found["laws"]["best_of"]["proxy"]["alpha"]["mean"] > 0
    text = (place / "frontier.md").read_text()
    assert f"Best by gold: {found['best']}." in text and "| best of 4 |" in text and "Answers that the proxy" in text
    drawing = ET.fromstring((place / "frontier.svg").read_text())
    titles = [each.text for each in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "PPO: gain over the start" in titles and "Best of n: gain over the start" in titles
    said, told = capsys.readouterr()
    assert "evaluate: step 192/192 (100%)" in told  # 16 prompts: 4 policies draw and are measured, and 4 for the best
    assert f"results: {place}/frontier.md" in said and "step-000001" in said
    assert len((place / "step-000001.jsonl").read_text().splitlines()) == 16
    assert main(arguments(run, workshop, tmp_path / "evaluate")) == 0
    assert "complete, nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["reward_model=null"], "reward_model: name the reward model that PPO optimised"),
        (["judges=null"], "gold: the frontier needs a judge that training did not optimise"),
    ],
)
def test_a_missing_judge_is_one_clear_line(
    run: Path, workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    given = [each for each in arguments(run, workshop, tmp_path) if not each.startswith(change[0].split("=")[0])]
    assert main([*given, *(each for each in change if not each.startswith("judges"))]) == 2
    assert message in capsys.readouterr().err


def test_a_directory_without_a_ppo_run_is_refused(
    workshop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path, workshop, tmp_path / "out")) == 2
    assert "config.yaml" in capsys.readouterr().err
