"""A run that is killed while it saves ends, started again, with the same files as one that was not."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

OTHERWISE = {"metrics.jsonl", "run.lock", "config.yaml"}
"""Files with times, the process and the directory in them."""


@pytest.fixture
def at_renames(root: Path, environment: dict[str, str]) -> Callable[[Path, Path, list[str]], int]:
    """A function that kills copies of a run at every rename and starts them again; see `kill_at_renames.py`."""

    def kill(finished: Path, where: Path, arguments: list[str]) -> int:
        script = [sys.executable, str(Path(__file__).with_name("kill_at_renames.py"))]
        done = subprocess.run(
            [*script, str(finished), str(where), *arguments],
            capture_output=True, text=True, cwd=root, env=environment, timeout=250,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return int(done.stdout.splitlines()[-1])

    return kill


def test_killed_before_any_rename_and_started_again_a_run_leaves_the_same_files(
    tmp_path: Path,
    finished_sft: Path,
    command: Callable[..., list[str]],
    at_renames: Callable[[Path, Path, list[str]], int],
    on_disk: ModuleType,
) -> None:
    unfinished = Path(shutil.copytree(finished_sft, tmp_path / "unfinished"))
    (unfinished / "complete.json").unlink()
    shutil.rmtree(unfinished / "checkpoints" / "step-000004")  # it resumes from step 2, and replaces the policy
    num = at_renames(unfinished, tmp_path / "killed", command(Path("{run}")))
    assert num >= 6  # config, metrics, a checkpoint, the old policy, the new one, the mark
    whole = on_disk.contents(finished_sft)
    for boundary in range(num + 1):
        found = on_disk.contents(tmp_path / "killed" / str(boundary))
        assert found.keys() == whole.keys(), boundary
        assert {name for name in whole if found[name] != whole[name]} <= OTHERWISE
        assert on_disk.timeless(tmp_path / "killed" / str(boundary)) == on_disk.timeless(finished_sft)
