"""Bad input through the command line: one clear line, the right exit status, no traceback, nothing half-written."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlhf.cli import main

TINY = "data/tiny_model"
LEFTOVERS = {"run.lock"}
"""What a run that was refused may leave: the mark that the directory is one of ours."""
SMALL = {
    "sft": ("steps=1", "epochs=null", "batch_size=4", "eval_data.limit=4", "data.limit=8"),
    "reward-model": (
        *(f"model.path={TINY}", "model.random_init=true", "steps=1", "epochs=null", "batch_size=4"),
        *("data.limit=8", "eval_data.limit=4", "demonstrations.limit=4"),
    ),
    "ppo": (
        *(f"model.path={TINY}", "model.random_init=true", "steps=1", "rollout_batch_size=4", "epochs=1"),
        *("sampling.max_new_tokens=3", "checkpoints.every=null"),
    ),
}
"""What makes a stage of configs/smoke run alone and in a second."""
REWARDS = """
def constant(prompts, completions, **columns):
    return [2.5] * len(prompts)

def huge(prompts, completions, **columns):
    return [1e6 * (-1) ** index for index in range(len(prompts))]
"""


@dataclass(frozen=True)
class Outcome:
    """What a command said and left behind."""

    status: int
    out: str
    errors: list[str]
    directory: Path

    @property
    def metrics(self) -> dict[str, float]:
        """The last row of metrics.jsonl."""
        return json.loads((self.directory / "metrics.jsonl").read_text().splitlines()[-1])

    def written(self) -> set[str]:
        """The names in the output directory."""
        return {path.name for path in self.directory.iterdir()} if self.directory.exists() else set()


@pytest.fixture
def run(tmp_path: Path, in_the_repository: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a stage of configs/smoke, made small, with overrides, as the command line does."""

    def command(verb: str, overrides: Sequence[str]) -> Outcome:
        directory = tmp_path / "run" / verb
        capsys.readouterr()
        name = verb.replace("-", "_")
        rewards = f"rewards=[{{kind: function, path: '{tmp_path}/rewards.py:constant'}}]"
        (tmp_path / "rewards.py").write_text(REWARDS)
        own = [*SMALL[verb], *([rewards] if verb == "ppo" else [])]
        status = main([verb, "--config", f"configs/smoke/{name}.yaml", f"output_dir={directory}", *own, *overrides])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        errors = [line for line in printed.err.splitlines() if line.startswith(("error:", "config error:"))]
        return Outcome(status, printed.out, errors, directory)

    return command


@pytest.fixture
def refused(run: Callable[..., Outcome]) -> Callable[..., str]:
    """Run a stage that must be refused with a status, and return its one line."""

    def command(verb: str, overrides: Sequence[str], status: int) -> str:
        outcome = run(verb, overrides)
        assert (outcome.status, len(outcome.errors)) == (status, 1), outcome
        assert outcome.written() <= LEFTOVERS
        return outcome.errors[0].removeprefix("error: ")

    return command


@pytest.fixture
def tiny_model_copy(root: Path) -> Callable[..., Path]:
    """A function that copies data/tiny_model with other keys in tokenizer_config.json; None takes one out."""

    def copy(directory: Path, **changes: str | None) -> Path:
        shutil.copytree(root / TINY, directory)
        path = directory / "tokenizer_config.json"
        kept = {key: value for key, value in {**json.loads(path.read_text()), **changes}.items() if value is not None}
        path.write_text(json.dumps(kept))
        return directory

    return copy
