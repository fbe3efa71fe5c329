"""Each file of a checkpoint, damaged in each way: never loaded; the one before it gives the same bytes in the end."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.trial, pytest.mark.timeout(3000)]

KEEP = "checkpoints.keep=2"


def _flip(path: Path, place: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= 4
    path.write_bytes(data)


def _manifest(**changes: Any) -> Callable[[Path], object]:
    def tamper(path: Path) -> None:
        manifest = json.loads(path.read_text())
        for key, value in changes.items():
            place = manifest["files"] if key == "files" else manifest
            place.update(value if key == "files" else {key: value})
        path.write_text(json.dumps(manifest))

    return tamper


def _linked(path: Path) -> None:
    outside = path.parents[4] / f"elsewhere-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: os.truncate(path, 0),
    "half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a bit flipped at the start": lambda path: _flip(path, 0),
    "a bit flipped in the middle": lambda path: _flip(path, 0.5),
    "a bit flipped at the end": lambda path: _flip(path, 1),
    "gone": lambda path: path.unlink(),
    "a link": _linked,
}
TAMPERED: dict[str, Callable[[Path], object]] = {
    "another step": _manifest(step=3),
    "fewer rows": _manifest(rows=1),
    "no files": _manifest(files={}, format_version=1),
    "a file elsewhere": _manifest(files={"../../../etc/passwd": {"size": 1, "sha256": "0"}}),
    "an absolute path": _manifest(files={"/etc/passwd": {"size": 1, "sha256": "0"}}),
    "another sum": _manifest(files={"state.json": {"size": 3, "sha256": "0" * 64}}),
    "another fingerprint": _manifest(fingerprint={}),
    "a list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000),
}


def cases(checkpoint: Path) -> dict[str, Callable[[Path], object]]:
    """Return each damage by what it is called; each takes the checkpoint's directory."""
    found: dict[str, Callable[[Path], object]] = {
        f"{path.name} {how}": lambda place, name=path.name, damage=damage: damage(place / name)
        for path in sorted(checkpoint.iterdir())
        for how, damage in DAMAGES.items()
    }
    for how, tamper in TAMPERED.items():
        found[f"manifest.json with {how}"] = lambda place, tamper=tamper: tamper(place / "manifest.json")
    found["one file more"] = lambda place: (place / "more.safetensors").write_bytes(b"x")
    found["one link more"] = lambda place: (place / "more.json").symlink_to("/etc/passwd")
    return found


@pytest.mark.parametrize("name", ["SFT", "PPO, separate critic"])
def test_a_damaged_checkpoint_is_never_loaded_and_the_one_before_it_gives_the_same_bytes(
    name: str, trial: Any, stride: int
) -> None:
    whole = trial.whole(name, KEEP)
    newest = Path("run", "checkpoints", "step-000004")
    unfinished = trial.copy(whole, "policy", "complete.json")
    for told, damage in list(cases(whole.place / newest).items())[::stride]:
        place = trial.place(unfinished)
        damage(place / newest)
        named = trial.begin(name, place, KEEP, f"checkpoints.resume={newest}").end()
        is_right = named.status == 4 and len(named.errors) == 1 and str(newest) in named.errors[0]
        trial.check(is_right, f"{told}, named: status {named.status}: {named.err[-400:]}")
        ended = trial.again(told, name, place, whole, KEEP)
        skipped = f"checkpoint {newest} skipped: "
        trial.check(skipped in ended.out, f"{told}: not said to be skipped: {ended.out[-400:]}")
    trial.end()
