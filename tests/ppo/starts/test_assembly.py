"""Whole runs with resets: plain PPO at fraction 0, resuming, two processes."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file

from rlhf.config import PPOConfig
from rlhf.config.reading.loader import save_config
from rlhf.errors import CheckpointError, ConfigError, DataError
from rlhf.ppo import train_ppo
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import PPOSteps
from rlhf.ppo.starts.own_best import OwnBest

OWN_BEST = {
    "fraction": 0.7,
    "demonstrations": {"kind": "own_best", "size": 5},
    "cut": {"law": "annealed", "until": 1.0},
}


def run_config(tiny: ModuleType, workshop: Path, output: Path, **changes: Any) -> PPOConfig:
    settings = {"steps": 4, "samples_every": 1, "score__normalise": "running", "optimizer__learning_rate": 1e-2}
    return tiny.ppo_config(workshop, output_dir=str(output), **(settings | changes))


@pytest.mark.slow
def test_fraction_zero_is_plain_ppo_byte_for_byte(
    tiny: ModuleType, workshop: Path, tmp_path: Path, on_disk: ModuleType
) -> None:
    """Also when resets are on and no coin falls on one: then only the metrics of resets come on top."""
    sections = {
        "plain": None,
        "zero": tiny.reset_section(workshop, 0.0),
        "never": tiny.reset_section(workshop, 1e-12),
    }
    for name, section in sections.items():
        train_ppo(run_config(tiny, workshop, tmp_path / name, reset=section))
    assert on_disk.timeless(tmp_path / "zero") == on_disk.timeless(tmp_path / "plain")
    without = [
        {name: value for name, value in row.items() if "reset/" not in name}
        for row in on_disk.timeless(tmp_path / "never")
    ]
    assert without == on_disk.timeless(tmp_path / "plain")
    saved = [on_disk.digests(tmp_path / name) for name in sections]
    for files in saved:  # the card tells of the configuration, and the list has its hash
        del files["policy/README.md"], files["policy/rlhf_files.json"]
    assert saved[0] == saved[1] == saved[2]
    assert "policy/model.safetensors" in saved[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["own_best", "guide", "data"])
def test_stopped_and_resumed_equals_uninterrupted(
    tiny: ModuleType,
    workshop: Path,
    tmp_path: Path,
    stopped_after_two_steps: Callable[[PPOConfig], None],
    kind: str,
    on_disk: ModuleType,
) -> None:
    section = {"own_best": OWN_BEST, "data": tiny.reset_section(workshop, 0.5)}.get(kind)
    guide = {"kind": "guide", "path": str(workshop / "policy"), "num_demonstrations": 6}
    section = section or {"fraction": 0.5, "demonstrations": guide}
    train_ppo(run_config(tiny, workshop, tmp_path / "whole", reset=section))
    config = run_config(tiny, workshop, tmp_path / "halves", reset=section)
    stopped_after_two_steps(config)
    train_ppo(config)
    whole = on_disk.timeless(tmp_path / "whole")
    assert on_disk.timeless(tmp_path / "halves") == whole and len(whole) == 4
    assert on_disk.digests(tmp_path / "halves") == on_disk.digests(tmp_path / "whole")
    shares = [row["reset/share"] for row in whole]
    assert all(shares[1:3]) and (shares[0] == 0) == (kind == "own_best"), "own best responses come with the first step"


def test_a_stop_between_keeps_the_policys_own_best(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    config = run_config(tiny, workshop, tmp_path, reset=OWN_BEST)
    made = tiny.parts(config)
    steps = PPOSteps(made.trainer, ListedPrompts(made.prompts, made.trainer.config), tmp_path)
    for index in range(2):
        steps.step(index)
    state = json.loads(json.dumps(steps.saved()[1]))["resets"]
    assert state["num_done"] == 2 and len(state["own_best"]) == 5
    assert all(each["response_ids"] for each in state["own_best"])
    scores = [each["score"] for each in state["own_best"]]
    assert scores == sorted(scores, reverse=True)


def resets(tiny: ModuleType, workshop: Path, path: Path, *values: dict[str, Any], **changes: Any) -> Any:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    section = {"fraction": 0.5, "demonstrations": {"kind": "data", "path": str(path)}, **changes}
    return tiny.parts(tiny.ppo_config(workshop, reset=section)).trainer.resets


def test_demonstrations_lose_what_ends_them_and_those_without_an_inside(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    """`e` is a stop string of the tiny PPO."""
    values = [{"prompt": "It", "completion": text} for text in (" ran on.", "e", " hit us all", " a plot")]
    made = resets(tiny, workshop, tmp_path / "rows.jsonl", *values)
    tokenizer = tiny.parts(tiny.ppo_config(workshop)).trainer.collector.tokenizer
    assert [tokenizer.decode(each.response_ids) for each in made.pool()] == [" ran on.", " hit u", " a plot"]


def test_chosen_responses_are_demonstrations(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    values = [{"prompt": "It", "chosen": " ran on.", "rejected": " hit us"}]
    (only,) = resets(tiny, workshop, tmp_path / "rows.jsonl", *values).pool()
    assert only.prompt.raw == "It" and only.prompt.columns.keys() == {"chosen", "rejected"}


def test_demonstrations_in_which_nothing_can_begin_are_refused(
    tiny: ModuleType, workshop: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    with pytest.raises(DataError, match="all 1 end with their first token"):
        resets(tiny, workshop, file, {"prompt": "It", "completion": "e"})
    with pytest.raises(DataError, match="sentence finds no place to cut in any of 1 demonstrations"):
        resets(tiny, workshop, file, {"prompt": "It", "completion": " ran on"}, cut={"law": "sentence"})


def test_the_prompts_of_demonstrations_must_fit_too(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    value = {"prompt": "It ran on " * 40, "completion": " it"}
    with pytest.raises(ConfigError, match=r"longest prompt \(\d+ tokens\) \+ sampling.max_new_tokens"):
        resets(tiny, workshop, tmp_path / "rows.jsonl", value)


def test_other_demonstrations_make_another_run(tiny: ModuleType, workshop: Path, tmp_path: Path) -> None:
    shutil.copy(workshop / "demonstrations.jsonl", tmp_path / "rows.jsonl")
    shown = {"kind": "data", "path": str(tmp_path / "rows.jsonl")}
    config = run_config(tiny, workshop, tmp_path / "run", steps=1, reset={"fraction": 0.5, "demonstrations": shown})
    train_ppo(config)
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "It", "completion": " ran on"}) + "\n")
    with pytest.raises(CheckpointError, match="holds the result of a run with another config"):
        train_ppo(config)


def test_one_token_responses_leave_nothing_to_force(tiny: ModuleType, workshop: Path) -> None:
    with pytest.raises(ValueError, match="reset needs sampling.max_new_tokens of at least 2"):
        tiny.ppo_config(workshop, reset=tiny.reset_section(workshop, 0.5), sampling__max_new_tokens=1)


TWO = """
import os, signal, sys
from pathlib import Path
from rlhf.config import PPOConfig
from rlhf.config.reading.loader import load_config
from rlhf.errors import Terminated
from rlhf.ppo import train_ppo
from rlhf.ppo.run.prompt_source import ListedPrompts
from rlhf.ppo.run.steps import PPOSteps
step, stopping = PPOSteps.step, False
def watched(self, index):
    metrics = step(self, index)
    state = self.trainer.resets.demonstrations.state()
    assert len(set(map(str, self.trainer.processes.gathered([state])))) == 1, "all hold the same own best"
    if stopping and index == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return metrics
PPOSteps.step = watched
whole, halves = (load_config(PPOConfig, Path(name)) for name in sys.argv[1:])
train_ppo(whole)
stopping = True
try:
    train_ppo(halves)
except Terminated as stopped:
    print(stopped)
stopping = False
train_ppo(halves)
"""


def test_two_processes_hold_the_same_own_best_and_resume(
    tiny: ModuleType,
    workshop: Path,
    tmp_path: Path,
    in_two_processes: Callable[[list[str]], list[str]],
    on_disk: ModuleType,
) -> None:
    (tmp_path / "two.py").write_text(TWO)
    names = ["whole", "halves"]
    for name in names:
        config = run_config(tiny, workshop, tmp_path / name, reset=OWN_BEST, steps=3, expected_processes=2)
        save_config(config, tmp_path / f"{name}.yaml")
    files = [str(tmp_path / f"{name}.yaml") for name in names]
    output = "".join(in_two_processes([sys.executable, str(tmp_path / "two.py"), *files]))
    assert "stopped by a signal after step 2" in output and "resuming from" in output
    state = load_file(tmp_path / "halves" / "checkpoints" / "step-000002" / "generators.safetensors")
    assert state["resets_0"].tolist() != state["resets_1"].tolist(), "each process draws its own starts"
    assert (
        on_disk.timeless(tmp_path / "halves") == on_disk.timeless(tmp_path / "whole")
        and len(on_disk.timeless(tmp_path / "whole")) == 3
    )
    assert on_disk.digests(tmp_path / "halves") == on_disk.digests(tmp_path / "whole")
    assert on_disk.timeless(tmp_path / "whole")[1]["reset/share"] > 0


def test_own_best_is_of_the_runs_prompts(tiny: ModuleType, workshop: Path) -> None:
    made = tiny.parts(tiny.ppo_config(workshop, reset=OWN_BEST))
    made.trainer.step(made.prompts)
    assert isinstance(made.trainer.resets.demonstrations, OwnBest)
    assert {each.prompt.text for each in made.trainer.resets.pool()} <= {prompt.text for prompt in made.prompts}
