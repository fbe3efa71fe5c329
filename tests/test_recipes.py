"""Tests of rlhf.recipes: what `rlhf init` writes, from a clone and from an installed wheel."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf.cli import main
from rlhf.cli.verbs import STAGES, verb_of
from rlhf.config.reading.loader import load_config
from rlhf.errors import ConfigError
from rlhf.recipes import recipes, write_recipe

NOT_SOURCES = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "site")
"""What a fresh clone does not hold."""


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_whole_where_it_was_written(name, tmp_path, monkeypatch) -> None:
    assert write_recipe(name, tmp_path / "mine") == tmp_path / "mine/run.yaml"
    monkeypatch.chdir(tmp_path / "mine")
    for path in Path().glob("*.yaml"):
        text = path.read_text()
        load_config(STAGES[verb_of(path)].model, path)
        assert f"configs/{name}" not in text
        schema = text.splitlines()[0].partition("$schema=")[2]
        assert Path(schema).is_file()


def test_the_data_that_a_recipe_names_come_along_and_no_other(tmp_path) -> None:
    write_recipe("smoke", tmp_path)
    assert (tmp_path / "data/sft_train.jsonl").is_file() and (tmp_path / "data/tiny_model/tokenizer.json").is_file()
    assert not (tmp_path / "data/labelled_texts.jsonl").exists()
    write_recipe("quickstart", tmp_path / "quickstart")
    assert not (tmp_path / "quickstart/data").exists()


def test_what_is_there_is_never_overwritten_and_names_are_checked(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not an empty directory - give a new one"):
        write_recipe("smoke", tmp_path)
    with pytest.raises(ConfigError, match="is not an empty directory"):
        write_recipe("smoke", tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="init: --recipe big: must be one of quickstart, reviews, smoke"):
        write_recipe("big", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_command_says_how_to_start(tmp_path, capsys) -> None:
    folder = tmp_path / "my run"
    assert main(["init", str(folder), "--recipe", "smoke"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"start it with: cd '{folder}' && rlhf run --config run.yaml"
    assert main(["init", str(folder)]) == 2


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has our wheel, built from our sdist, and of this one the other packages."""
    place = tmp_path_factory.mktemp("package")
    shutil.copytree(root, place / "clone", ignore=NOT_SOURCES)
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", place / "dist", "."], place / "clone")
    (wheel,) = (place / "dist").glob("*.whl")
    _run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], place)
    programs = place / "venv/bin"
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "-qq", "--no-index", "--no-deps"]
    _run([*pip, wheel], place)
    # The packages beside ours are those of this environment, our own clone excepted: a path is no site directory.
    (site,) = (place / "venv/lib").glob("*/site-packages")
    (site / "others.pth").write_text("\n".join(path for path in sys.path if Path(path).name.endswith("-packages")))
    return programs


@pytest.mark.slow
def test_the_smoke_recipe_runs_from_an_installed_wheel_in_an_empty_directory(installed, tmp_path) -> None:
    where = _run([installed / "python", "-c", "import rlhf; print(rlhf.__file__)"], tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)
    _run([installed / "rlhf", "init", "mine", "--recipe", "smoke"], tmp_path)
    first_stage = ["reward_model=null", "ppo=null", "evaluate=null", "sft.epochs=null", "sft.steps=2"]
    _run([installed / "rlhf", "run", "--config", "run.yaml", *first_stage], tmp_path / "mine")
    assert (tmp_path / "mine/runs/smoke/sft/policy/model.safetensors").is_file()


def _run(command: list[str | Path], directory: Path) -> str:
    """Run a command without this package on its path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=directory, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
