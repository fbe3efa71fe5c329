"""Fingerprints of what determines a result: configurations, and the content of files and directories."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.training.storage.listing import file_sha256
from rlhf.training.storage.manifest import JSON

LATER: dict[str, JSON] = {"moments": "float32", "early": False}
"""Keys of configurations that came when there were results to take up, and the value at which they change nothing."""


def without_later(content: JSON) -> JSON:
    """Return JSON content without the keys of `LATER` where they change nothing, as a run from before them had it."""
    if isinstance(content, list):
        return [without_later(each) for each in content]
    if not isinstance(content, dict):
        return content
    kept = {key: each for key, each in content.items() if key not in LATER or LATER[key] != each}
    return {key: without_later(each) for key, each in kept.items()}


def json_digest(content: JSON) -> str:
    """Return the sha256 of JSON content."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def content_digest(path: str) -> str:
    """Return a sha256 over the file at a path, or over all files below it and their names; for a hub name, the name.

    The digest of an adapter directory includes its base model.
    """
    return _digest(path, frozenset())


def _digest(path: str, above: frozenset[Path]) -> str:
    """Return the digest of what is at a path; `above` are the adapters that led here."""
    place = Path(path)
    if not place.exists():
        return path
    if place.is_file():
        return file_sha256(place)
    files = sorted(file for file in place.rglob("*") if file.is_file())
    listed = [[str(file.relative_to(place)), file_sha256(file)] for file in files]
    return json_digest([listed, _base_of_adapter(place, above | {place.resolve()})])


def flattened(section: Mapping[str, Any], prefix: str = "") -> dict[str, JSON]:
    """Name nested values by their path, `optimizer.learning_rate`, as an override on the command line does."""
    flat: dict[str, JSON] = {}
    for key, value in section.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def lengthened(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Say how much longer a run is than another, as in `steps: 4 -> 8`; None if more, less or nothing differs."""
    key = "epochs" if now.get("steps") is None else "steps"  # where steps are set, epochs are those of each batch
    differing = [each for each in sorted({*saved, *now}) if saved.get(each) != now.get(each)]
    before, after = saved.get(key), now.get(key)
    if differing != [key] or not isinstance(before, int) or not isinstance(after, int) or before > after:
        return None
    return f"{key}: {before} -> {after}"


def _base_of_adapter(directory: Path, above: frozenset[Path]) -> str | None:
    base = _text_at("base_model_name_or_path", directory / "adapter_config.json")
    if base is not None and Path(base).is_absolute() and not Path(base).exists():
        base = _moved(directory) or base
    return _digest(base, above) if base is not None and Path(base).resolve() not in above else None


def _moved(directory: Path) -> str | None:
    """Find the base that was moved together with its adapter, as `models/pretrained/adapters.py` does."""
    name = _text_at("base_model", directory / "base_model.json")
    places = [above / name for above in directory.resolve().parents] if name else []
    return next((str(place) for place in places if place.is_dir() and place != directory.resolve()), None)


def _text_at(key: str, file: Path) -> str | None:
    """Return the text at a key of a JSON file; None where there is none, since loading the model says why."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if isinstance(found, str) and "\0" not in found else None
