"""docs/how-do-i.md: each YAML block fits its stage, each command is understood, each script runs."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf.cli.options import check_verb, make_parser, split
from rlhf.cli.verbs import STAGES, verb_of
from rlhf.config.reading.loader import load_config

PAGE = Path(__file__).parents[1] / "docs/how-do-i.md"
RECIPES = {
    title: re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
}
"""The blocks of each recipe, with their languages."""
FILES: dict[str, dict[str, Any]] = {
    "sft.yaml": {"output_dir": "runs/x/sft", "model": {"path": "m"}, "data": {"path": "d.jsonl"}, "steps": 2},
    "reward_model.yaml": {"output_dir": "runs/x/reward_model", "model": {"path": "m"}, "data": {"path": "d.jsonl"}},
    "ppo.yaml": {
        "output_dir": "runs/x/ppo",
        "model": {"path": "m"},
        "prompts": {"path": "p.jsonl"},
        "rewards": [{"kind": "repetition"}],
        "steps": 2,
    },
    "run.yaml": {"output_dir": "runs/x"},
}
"""What the files hold in which the blocks change some lines."""
OTHER_PROGRAMS = ("cd", "lm_eval", "pip", "tensorboard")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test runs beside these files."""
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    return tmp_path


def blocks(*languages: str) -> list[Any]:
    """The blocks in some languages, each with its recipe's title as its name."""
    return [pytest.param(text, id=title) for title, each in RECIPES.items() for kind, text in each if kind in languages]


def test_there_are_twenty_four_recipes_and_each_shows_how() -> None:
    assert len(RECIPES) == 24 and all(RECIPES.values())
    assert {kind for each in RECIPES.values() for kind, _ in each} == {"yaml", "bash", "python"}


@pytest.mark.parametrize("text", blocks("yaml"))
def test_a_block_of_yaml_fits_into_the_file_that_it_names(text: str, files: Path) -> None:
    name = re.match(r"# (\w+\.yaml)\n", text)
    assert name is not None
    path = files / name[1]
    path.write_text(yaml.safe_dump(FILES[name[1]] | yaml.safe_load(text)))
    load_config(STAGES[verb_of(path)].model, path)


@pytest.mark.parametrize("text", blocks("bash"))
def test_a_command_is_understood_with_every_key_that_it_sets(text: str, files: Path) -> None:
    for line in text.splitlines():
        words = shlex.split(line.rpartition(" -m ")[2])
        if words[0] in OTHER_PROGRAMS:
            continue
        assert words[0] == "rlhf", line
        rest, overrides = split(words[1:])
        parser, verbs = make_parser()
        check_verb(rest, list(verbs))
        options = parser.parse_args(rest)
        if options.command not in STAGES and options.command != "validate":
            continue
        if getattr(options, "model", None):
            overrides.append(f"model={options.model}")
        verb = verb_of(options.config) if options.command == "validate" else options.command
        load_config(STAGES[verb].model, options.config, overrides)


@pytest.mark.sweep
@pytest.mark.parametrize("text", blocks("python"))
def test_a_script_runs(text: str, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = text.replace("fetch:smollm2-135m-instruct", str(workshop / "policy")).replace("steps=50", "steps=1")
    made: dict[str, Any] = {}
    exec(compile(text, "how-do-i.md", "exec"), made)
    assert made["score"](prompts=["a"], completions=["a wonderful b"], label=[1]) == [1.0]
    if "trainer" in made:
        assert len(made["trainer"].history) == 1
        assert json.loads((tmp_path / "runs/wonderful/policy/config.json").read_text())["model_type"] == "llama"
