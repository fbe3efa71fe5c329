"""The real command line on tiny runs of the smoke recipe, and a finished run to damage."""

import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import pytest

from rlhf.cli import main


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def finished_sft(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A finished run of SFT over five steps, with checkpoints of steps 2 and 4; not to be changed."""
    directory = tmp_path_factory.mktemp("faults") / "sft"
    with chdir(root):
        assert main(sft_command(directory)) == 0
    return directory


@pytest.fixture
def run(finished_sft: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished_sft, tmp_path / "sft"))


@pytest.fixture
def sft(root: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """`sft(directory, "key=value")` runs the command in this process."""

    def call(directory: Path, *overrides: str) -> Ended:
        capsys.readouterr()
        with chdir(root):
            status = main(sft_command(directory, *overrides))
        return Ended(status, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def command() -> Callable[..., list[str]]:
    """The arguments of the same command, for a process of its own."""
    return sft_command


def sft_command(directory: Path, *overrides: str) -> list[str]:
    """Return the arguments that run SFT over five steps in a directory."""
    fixed = ["epochs=null", "steps=5", "eval_every=null", "eval_data=null", "checkpoints.every=2"]
    return ["sft", "--config", "configs/smoke/sft.yaml", *fixed, f"output_dir={directory}", *overrides]
