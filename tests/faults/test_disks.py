"""Disks that are full, limited, failing or not to be written: status 4, one line, and what was there stays usable."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(3000)]

WRITES = ("open", "mkdir", "fsync", "rename")
PLACES = {"a save": "checkpoints/step-000004.tmp", "the metrics": "metrics.jsonl", "the export": "policy.tmp",
          "the mark": "complete.json", "the configuration": "config.yaml"}  # fmt: skip
LASTING = {"full": errno.ENOSPC, "beyond the quota": errno.EDQUOT}
ONCE = {"failing": errno.EIO, "read-only": errno.EROFS, "forbidden": errno.EACCES}


def refused(trial: Any, ended: Any, place: Path, told: str) -> None:
    """Note unless a run ended with status 4, one clear line, and nothing half written."""
    left = [str(path.relative_to(place)) for path in place.rglob("*tmp-*")]
    is_right = ended.status == 4 and len(ended.errors) == 1 and "Traceback" not in ended.err and not left
    trial.check(is_right, f"{told}: status {ended.status}, left {left}: {ended.err[-400:]}")


@pytest.mark.parametrize("disk", [*LASTING, *ONCE])
def test_a_disk_that_fails_at_any_write_is_refused_and_the_run_goes_on_later(
    disk: str, trial: Any, stride: int
) -> None:
    name, lasting = "SFT", disk in LASTING
    number = {**LASTING, **ONCE}[disk]
    whole = trial.whole(name)
    operations = [at for at, line in enumerate(whole.operations) if line.split()[0] in WRITES]
    firsts = [next(at for at in operations if part in whole.operations[at]) for part in PLACES.values()]
    every = sorted({*firsts, *operations[:: 4 * stride]})
    for at in every:
        place = trial.place()
        told = f"{disk} at operation {at} ({whole.operations[at]})"
        injection = trial.injection(place, "error", at, number=number, lasting=lasting)
        refused(trial, trial.begin(name, place, injection=injection).end(), place, told)
        trial.again(told, name, place, whole)
    trial.end()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.4, 0.6, 0.8, 0.95])
def test_a_limit_on_the_size_of_files_is_refused_and_the_run_goes_on_later(share: float, trial: Any) -> None:
    name = "PPO, plain"
    whole = trial.whole(name)
    largest = max(len(data) for data in whole.files.values())
    place = trial.place()
    ended = trial.begin(name, place, injection=trial.injection(place, "limit", int(share * largest))).end()
    refused(trial, ended, place, f"files of {share:.0%} of the largest")
    trial.again(f"files of {share:.0%} of the largest", name, place, whole)
    trial.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Any]:
    """`small_disk(bytes)` is a directory on a disk of its own; it needs the right to mount one."""
    mounted: list[Path] = []

    def mount(size: int) -> Path:
        path = tmp_path / f"disk-{size}"
        path.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", path], capture_output=True)
        if done.returncode != 0:
            pytest.skip("only root may mount a disk")
        mounted.append(path)
        return path

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="only root may mount a disk")
def test_a_small_disk_that_is_full_is_refused_and_the_run_goes_on_once_there_is_space(
    trial: Any, small_disk: Any
) -> None:
    name = "SFT"
    whole = trial.whole(name)
    total = sum(len(data) for data in whole.files.values())
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        place = small_disk(int(share * total))
        ended = trial.begin(name, place).end()
        refused(trial, ended, place, f"a disk of {share:.0%} of what the run leaves")
        subprocess.run(["mount", "-o", f"remount,size={4 * total}", place], check=True)
        trial.again(f"a disk of {share:.0%} of what the run leaves", name, place, whole)
    trial.end()
