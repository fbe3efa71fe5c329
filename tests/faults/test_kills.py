"""A run that is killed while it saves ends, started again, with the same files as one that was not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

OTHERWISE = {"metrics.jsonl", "run.lock", "config.yaml", "circumstances.json"}
"""Files with times, the process and the directory in them."""


@pytest.fixture
def kept_before_renames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[Path]]:
    """`kept_before_renames(run)` copies the run from now on before each rename in it: what a kill there leaves."""
    kept: list[Path] = []
    replace = os.replace

    def watch(run: Path) -> list[Path]:
        def copying(source: Any, target: Any) -> None:
            if Path(target).is_relative_to(run):
                kept.append(Path(shutil.copytree(run, tmp_path / f"killed-{len(kept)}", symlinks=True)))
            replace(source, target)

        monkeypatch.setattr(os, "replace", copying)
        return kept

    return watch


@pytest.mark.slow
def test_killed_before_any_rename_and_started_again_a_run_leaves_the_same_files(
    run: Path,
    finished_sft: Path,
    sft: Callable[..., Any],
    kept_before_renames: Callable[[Path], list[Path]],
    monkeypatch: pytest.MonkeyPatch,
    on_disk: ModuleType,
) -> None:
    (run / "complete.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000004")  # it resumes from step 2, and replaces the policy
    kept = kept_before_renames(run)
    assert sft(run).status == 0
    monkeypatch.undo()
    assert len(kept) >= 6  # config, metrics, a checkpoint, the old policy, the new one, the mark
    whole = on_disk.contents(finished_sft)
    for killed in [*kept, run]:
        ended = sft(killed)
        assert ended.status == 0, ended.err
        found = on_disk.contents(killed)
        assert found.keys() == whole.keys(), killed
        assert {name for name in whole if found[name] != whole[name]} <= OTHERWISE
        assert on_disk.timeless(killed) == on_disk.timeless(finished_sft)
