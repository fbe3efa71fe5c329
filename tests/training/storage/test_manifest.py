"""A checkpoint whose files or manifest are damaged is never loaded."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rlhf.errors import CheckpointError
from rlhf.training.storage import manifest as manifest_module
from rlhf.training.storage.checkpoint import CheckpointStore


def _flip_bit(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (path / "model.safetensors").write_bytes(data)


def _truncate(path: Path) -> None:
    os.truncate(path / "model.safetensors", 100)


def _replace_by_symlink(path: Path) -> None:
    outside = path.parent.parent / "outside.safetensors"
    shutil.move(path / "model.safetensors", outside)
    (path / "model.safetensors").symlink_to(outside)


def _symlink_whole(path: Path) -> None:
    outside = path.parent.parent / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)


def _rewrite_manifest(path: Path, change: Callable[[dict], None]) -> None:
    """Change a manifest as an attacker would, who computes its sha256 anew."""
    content = json.loads((path / "manifest.json").read_text())
    del content["sha256"]
    change(content)
    content["sha256"] = manifest_module._content_sha256(content)
    (path / "manifest.json").write_text(json.dumps(content) + "\n")


def _rename_entry(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        shutil.copy(path / "model.safetensors", path.parent.parent / "other.safetensors")
        _rewrite_manifest(path, lambda m: m["files"].update({name: m["files"]["model.safetensors"]}))

    return damage


def _edit_manifest(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        text = (path / "manifest.json").read_text()
        assert old in text
        (path / "manifest.json").write_text(text.replace(old, new))

    return damage


DAMAGES = {
    "bit flip": (_flip_bit, "the sha256 of model.safetensors differs"),
    "truncation": (_truncate, r"model.safetensors has 100 bytes, expected \d+"),
    "missing file": (lambda path: (path / "state.json").unlink(), "missing state.json"),
    "extra file": (lambda path: (path / "evil.pt").touch(), "evil.pt not listed in manifest.json"),
    "symlink": (_replace_by_symlink, "model.safetensors is not a regular file"),
    "symlinked directory": (_symlink_whole, "not a directory"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
    "half a manifest": (lambda path: os.truncate(path / "manifest.json", 50), "manifest.json is cut short"),
    "half a line": (lambda path: (path / "manifest.json").write_text('{"step"\n'), "manifest.json is not JSON"),
    "a manifest without its last byte": (
        lambda path: os.truncate(path / "manifest.json", (path / "manifest.json").stat().st_size - 1),
        "manifest.json is cut short",
    ),
    "empty manifest": (lambda path: (path / "manifest.json").write_text("[]\n"), "manifest.json is not a JSON object"),
    "deep manifest": (
        lambda path: (path / "manifest.json").write_text("[" * 100_000 + "\n"),
        "manifest.json is not JSON",
    ),
    "huge manifest": (lambda path: os.truncate(path / "manifest.json", 1 << 30), "is larger than"),
    "parent path": (_rename_entry("../../other.safetensors"), "which is not a plain file name"),
    "absolute path": (_rename_entry("/etc/passwd"), "names '/etc/passwd', which is not a plain file name"),
    "dots": (_rename_entry(".."), r"names '\.\.', which is not a plain file name"),
    "changed fingerprint": (_edit_manifest('"fingerprint": {}', '"fingerprint": {"a": 1}'), "its sha256 differs"),
    "no files": (lambda path: _rewrite_manifest(path, lambda m: m.pop("files")), "lists no files"),
    "odd entry": (lambda path: _rewrite_manifest(path, lambda m: m["files"].update(a=1)), "lists no files"),
    "no step": (lambda path: _rewrite_manifest(path, lambda m: m.pop("step")), "lacks the step or the fingerprint"),
    "no rows": (lambda path: _rewrite_manifest(path, lambda m: m.pop("rows")), "has no number of rows"),
    "rows that are true": (
        lambda path: _rewrite_manifest(path, lambda m: m.update(rows=True)),
        "has no number of rows",
    ),
    "other step": (lambda path: _rewrite_manifest(path, lambda m: m.update(step=7)), "manifest.json is of step 7"),
    "other format": (_edit_manifest('"format_version": 2', '"format_version": 99'), "has format version 99"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_skipped_with_the_reason_and_refused_by_name(
    name: str, store: CheckpointStore, numbered: ModuleType
) -> None:
    damage, reason = DAMAGES[name]
    numbered.save(store, 1)
    path = numbered.save(store, 2)
    damage(path)
    skipped: list[str] = []
    newest = store.latest(skipped.append)
    assert newest is not None
    assert newest.step == 1
    assert len(skipped) == 1
    with pytest.raises(CheckpointError, match=reason) as refused:
        store.open(path)
    assert str(path) in str(refused.value)
    assert str(refused.value).split("damaged checkpoint: ")[1].startswith(skipped[0].split("skipped: ")[1])


@pytest.mark.parametrize("version", [1, 3])
def test_a_whole_checkpoint_of_another_format_is_refused_and_not_skipped_for_an_older_one(
    version: int, store: CheckpointStore, numbered: ModuleType
) -> None:
    numbered.save(store, 1)
    path = numbered.save(store, 2)
    _rewrite_manifest(path, lambda manifest: manifest.update(format_version=version))
    for call in (lambda: store.latest(pytest.fail), lambda: store.open(path)):
        with pytest.raises(
            CheckpointError, match=f"a checkpoint of format {version}, .* reads format 2; go on"
        ) as refused:
            call()
        assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(half_life=3),
        lambda manifest: manifest["files"]["state.json"].update(half_life=3),
    ],
)
def test_a_whole_manifest_with_a_key_that_nothing_reads_is_refused_and_not_skipped_for_an_older_one(
    change: Callable[[dict], None], store: CheckpointStore, numbered: ModuleType
) -> None:
    numbered.save(store, 1)
    path = numbered.save(store, 2)
    _rewrite_manifest(path, change)
    for call in (lambda: store.latest(pytest.fail), lambda: store.open(path)):
        with pytest.raises(CheckpointError, match="also holds 'half_life', which this rlhf does not read") as refused:
            call()
        assert str(path) in str(refused.value)


@pytest.mark.slow
def test_every_flipped_byte_of_a_manifest_is_found_or_means_the_same(
    store: CheckpointStore, numbered: ModuleType
) -> None:
    path = numbered.save(store, 1) / "manifest.json"
    original = path.read_bytes()
    for position in range(len(original)):
        path.write_bytes(original[:position] + bytes([original[position] ^ 1]) + original[position + 1 :])
        found = store.latest(lambda line: None)
        assert found is None or json.loads(path.read_bytes()) == json.loads(original)
