"""The list of a checkpoint's files with sizes and sha256 sums, which reveals damage before anything is loaded."""

import hashlib
import json
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias, Union

from rlhf.errors import CheckpointError
from rlhf.training.storage.listing import Damaged, Entry, check_file, entry_of

JSON: TypeAlias = Union[bool, int, float, str, Sequence["JSON"], Mapping[str, "JSON"], None]  # noqa: UP007 - names itself

MANIFEST = "manifest.json"
DISTRIBUTION = "rlhf-ppo"
"""The name under which this package is installed; to find it out would mean to read all that is installed."""
FORMAT_VERSION = 2
KEYS = frozenset({"format_version", "step", "rows", "files", "fingerprint", "versions"})
"""Of a manifest, besides its own sha256."""
ENTRY_KEYS = frozenset(Entry.__annotations__)
"""Of what it says about a file."""
MAX_MANIFEST_BYTES = 1 << 20
"""Far above what a checkpoint needs; a larger file is not one of ours and is not parsed."""


def build_manifest(directory: Path, step: int, fingerprint: Mapping[str, JSON], rows: int | None) -> str:
    """Describe every file of `directory` as JSON text that includes its own sha256."""
    files = {path.name: entry_of(path) for path in sorted(directory.iterdir())}
    content = {
        "format_version": FORMAT_VERSION,
        "step": step,
        "rows": rows,
        "files": files,
        "fingerprint": dict(fingerprint),
        "versions": _versions(),
    }
    return json.dumps({**content, "sha256": _content_sha256(content)}, indent=1, allow_nan=False) + "\n"


def verify(directory: Path, step: int) -> dict[str, Any]:
    """Check every file of a checkpoint against its manifest.

    Args:
        directory: the checkpoint.
        step: the step in its name.

    Returns:
        The manifest.

    Raises:
        Damaged: with the reason, in a few words.
        CheckpointError: another version of rlhf wrote it, in another format or with keys that this one ignores.
    """
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode):
            raise Damaged("not a directory")
        manifest = _read_manifest(directory)
        if manifest["step"] != step:
            raise Damaged(f"{MANIFEST} is of step {manifest['step']}")
        expected = set(manifest["files"]) | {MANIFEST}
        found = {path.name for path in directory.iterdir()}
        if missing := sorted(expected - found):
            raise Damaged(f"missing {', '.join(missing)}")
        if extra := sorted(found - expected):
            raise Damaged(f"{', '.join(extra)} not listed in {MANIFEST}")
        for name, entry in manifest["files"].items():
            check_file(directory / name, entry)
    except OSError as error:
        raise Damaged(str(error)) from error
    return manifest


def _read_manifest(directory: Path) -> dict[str, Any]:
    manifest = _parsed(_manifest_bytes(directory / MANIFEST))
    if not isinstance(manifest, dict):
        raise Damaged(f"{MANIFEST} is not a JSON object")
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    is_as_written = manifest.get("sha256") == _content_sha256(content)
    _check_format(directory, content.get("format_version"), is_as_written)
    if is_as_written:
        _check_keys(directory, content)
    _check_content(content)
    if not is_as_written:
        raise Damaged(f"{MANIFEST} was changed: its sha256 differs")
    return manifest


def _manifest_bytes(path: Path) -> bytes:
    if not path.is_symlink() and not path.exists():
        raise Damaged(f"{MANIFEST} is missing")
    if not stat.S_ISREG(path.lstat().st_mode):
        raise Damaged(f"{MANIFEST} is not a regular file")
    if path.lstat().st_size > MAX_MANIFEST_BYTES:
        raise Damaged(f"{MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        raise Damaged(f"{MANIFEST} is cut short")
    return content


def _parsed(content: bytes) -> object:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{MANIFEST} is not JSON") from error


def _check_format(directory: Path, version: object, is_as_written: bool) -> None:
    """Refuse a whole checkpoint of another format: to skip it for an older one would lose steps in silence."""
    if version == FORMAT_VERSION:
        return
    if not is_as_written:
        raise Damaged(f"{MANIFEST} has format version {version!r}, this is {FORMAT_VERSION}")
    raise CheckpointError(
        f"{directory}: a checkpoint of format {version}, this rlhf reads format {FORMAT_VERSION}; go on with "
        f"the version that wrote it ({MANIFEST} names it), or begin again in another output_dir"
    )


def _check_keys(directory: Path, content: Mapping[str, Any]) -> None:
    """Refuse a whole manifest that says more than this rlhf reads: nothing of it is ignored."""
    files = content.get("files")
    entries = [entry for entry in files.values() if isinstance(entry, dict)] if isinstance(files, dict) else []
    unread = [
        key
        for found, known in ((content, KEYS), *((entry, ENTRY_KEYS) for entry in entries))
        for key in found.keys() - known
    ]
    if unread:
        raise CheckpointError(
            f"{directory / MANIFEST}: also holds {min(unread)[:80]!r}, which this rlhf does not read; go on with the "
            "version that wrote it, or begin again in another output_dir"
        )


def _check_content(content: Mapping[str, Any]) -> None:
    """Refuse a manifest that lacks something, or that points outside its own directory."""
    files = content.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise Damaged(f"{MANIFEST} lists no files")
    if not isinstance(content.get("fingerprint"), dict) or type(content.get("step")) is not int:
        raise Damaged(f"{MANIFEST} lacks the step or the fingerprint")
    if "rows" not in content or type(content["rows"]) not in (int, type(None)):
        raise Damaged(f"{MANIFEST} has no number of rows")
    for name in files:
        if "/" in name or "\\" in name or "\0" in name or name in ("", ".", "..", MANIFEST):
            raise Damaged(f"{MANIFEST} names {name!r}, which is not a plain file name")


def _content_sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    with suppress(metadata.PackageNotFoundError):  # absent when run from an unpacked source tree
        versions["rlhf"] = metadata.version(DISTRIBUTION)
    return versions
