"""Checkpoints of a run: directories of safetensors and JSON that are loaded only when every byte verifies."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlhf.disk import make_private, open_up, write_atomic
from rlhf.errors import CheckpointError
from rlhf.training.storage import space
from rlhf.training.storage.atomic import REPLACED, atomic_directory, make_directory, publish, remove
from rlhf.training.storage.files import write_tensors, write_text
from rlhf.training.storage.fingerprint import lengthened
from rlhf.training.storage.leftovers import unfinished_checkpoints
from rlhf.training.storage.listing import Damaged
from rlhf.training.storage.manifest import JSON, MANIFEST, build_manifest, verify
from rlhf.training.storage.schema import Schema, check_form, check_names, check_tensors

__all__ = ["JSON", "Checkpoint", "CheckpointStore", "atomic_directory", "write_atomic"]

STATE = "state.json"
COURSE = "course.json"

_NAME = re.compile(r"step-(\d{6,})(?:\.old)?")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files were verified."""

    step: int
    """Optimizer steps (PPO: trainer steps) that were complete when it was written."""
    path: Path
    longer: str | None = None
    """How much longer this run is than the one that wrote it, as in `steps: 4 -> 8`."""
    rows: int | None = None
    """Rows that metrics.jsonl had; None if that is not known."""

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Load one group of tensors, on the CPU.

        Raises:
            CheckpointError: the checkpoint holds no group of this name.
        """
        path = self.path / f"{name}.safetensors"
        if not path.is_file():
            found = sorted(file.stem for file in self.path.glob("*.safetensors"))
            raise CheckpointError(f"{self.path}: no tensors named {name!r}; found {found}")
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from error

    @property
    def state(self) -> dict[str, Any]:
        """The JSON state that was saved with the tensors."""
        return self._json(STATE)

    @property
    def course(self) -> dict[str, Any]:
        """What the run had seen of the rules that end it; empty where it has none."""
        return self._json(COURSE) if (self.path / COURSE).is_file() else {}

    def read(self, schema: Schema) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Load all tensors, by group and name, and the state, if they are what a run expects.

        Raises:
            CheckpointError: something is missing, is more than expected, or has another shape or type.
        """
        groups = {file.stem: file for file in self.path.glob("*.safetensors")}
        check_names(str(self.path), groups, schema.tensors)
        tensors = {group: self.tensors(group) for group in groups}
        for group, expected in schema.tensors.items():
            check_tensors(str(groups[group]), tensors[group], expected)
        check_form(str(self.path / STATE), self.state, schema.state)
        return tensors, self.state

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(f"{self.path / name}: cannot be read: {error}") from error
        return content


class CheckpointStore:
    """The checkpoints of one run, one directory `step-000020` each.

    A checkpoint is written into a temporary sibling, every file is synced, the manifest comes last, and a rename makes
    it visible. Older ones are removed only after that, so a kill at any moment leaves the previous one usable.
    """

    def __init__(self, directory: Path, *, keep: int = 2, fingerprint: Mapping[str, JSON] | None = None) -> None:
        """Describe the store; nothing is written before the first save.

        Args:
            directory: holds the checkpoints of one run; the run's lock keeps other processes out.
            keep: how many verified checkpoints stay, at least 1.
            fingerprint: what must not change for a checkpoint to be loaded, such as the config's hash.
        """
        if keep < 1:
            raise ValueError(f"keep must be at least 1, found {keep}")
        self.directory = directory
        self.keep = keep
        self.fingerprint: dict[str, Any] = json.loads(json.dumps(dict(fingerprint or {}), allow_nan=False))

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, JSON],
        *,
        rows: int | None = None,
        course: Mapping[str, JSON] | None = None,
        spared: int | None = None,
    ) -> Path:
        """Write a checkpoint, then remove older ones beyond `keep`, later ones, and damaged ones.

        Later ones date from before the run was resumed from an earlier step.

        Args:
            step: names the checkpoint; one of the same step is replaced.
            tensors: groups of named tensors, each written as NAME.safetensors.
            state: anything else, as JSON.
            rows: that metrics.jsonl has.
            course: what the run has seen of the rules that end it, as JSON.
            spared: the step of a checkpoint that stays beside the newest ones.

        Returns:
            The directory of the checkpoint.

        Raises:
            CheckpointError: the disk is full or cannot be written; the older checkpoints are untouched.
        """
        if bad := [name for name in tensors if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]:
            raise ValueError(f"names of tensor groups are letters, digits, _ and -; found {bad}")
        text = json.dumps(dict(state), allow_nan=False)
        needed = space.num_bytes(tensors) + len(text)
        target = self.path_of(step)
        temporary = self.directory / f"{target.name}.tmp-{os.getpid()}"
        try:
            make_directory(self.directory)
            for left in unfinished_checkpoints(self.directory):
                remove(left)
            space.check_free(target, needed)
            mode = make_private(temporary)
            for name, group in tensors.items():
                write_tensors(temporary / f"{name}.safetensors", group)
            write_text(temporary / STATE, text)
            if course is not None:
                write_text(temporary / COURSE, json.dumps(dict(course), allow_nan=False))
            write_text(temporary / MANIFEST, build_manifest(temporary, step, self.fingerprint, rows))
            open_up(temporary, mode)
            publish(temporary, target, target.with_name(target.name + REPLACED))
            self._prune(step, spared)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{target}: cannot be saved: {error}; {needed} bytes needed, {space.free_bytes(self.directory)} free; "
                "older checkpoints are kept; free some space and start again with resume=auto"
            ) from error
        finally:
            remove(temporary)
        return target

    def path_of(self, step: int) -> Path:
        """Return the directory of the checkpoint after a step."""
        return self.directory / f"step-{step:06d}"

    def holds(self, step: int) -> bool:
        """Whether the checkpoint after a step is there and whole."""
        return _is_whole(self.path_of(step), step)

    def latest(self, on_skip: Callable[[str], None]) -> Checkpoint | None:
        """Return the newest checkpoint that verifies, or None.

        Args:
            on_skip: called with one line for each damaged checkpoint that is skipped.

        Raises:
            CheckpointError: the newest one that verifies was written by a run with another fingerprint, or it was
                written in another format.
        """
        for step, path in self._candidates():
            try:
                manifest = verify(path, step)
            except Damaged as reason:
                on_skip(f"checkpoint {path} skipped: {reason}")
                continue
            return Checkpoint(step, path, self._check_fingerprint(path, manifest), manifest["rows"])
        return None

    def open(self, path: Path) -> Checkpoint:
        """Return the checkpoint at `path`, and no other.

        Raises:
            CheckpointError: it is damaged, or was written by a run with another fingerprint or in another format.
        """
        name = _NAME.fullmatch(path.name)
        if name is None:
            raise CheckpointError(f"{path}: not a checkpoint; expected a directory named like step-000020")
        try:
            manifest = verify(path, int(name[1]))
        except Damaged as reason:
            raise CheckpointError(
                f"{path}: damaged checkpoint: {reason}; name another one or use resume=auto"
            ) from None
        return Checkpoint(int(name[1]), path, self._check_fingerprint(path, manifest), manifest["rows"])

    def _candidates(self) -> Iterator[tuple[int, Path]]:
        """Yield (step, path), newest first; one that is being replaced comes after its replacement."""
        names = [_NAME.fullmatch(path.name) for path in self.directory.iterdir()] if self.directory.is_dir() else []
        found = [(int(name[1]), not name[0].endswith(REPLACED), name[0]) for name in names if name]
        for step, _, name in sorted(found, reverse=True):
            yield step, self.directory / name

    def _check_fingerprint(self, path: Path, manifest: Mapping[str, Any]) -> str | None:
        """Refuse another run's checkpoint; say how much longer this run is, if nothing else differs."""
        saved, now = manifest["fingerprint"], self.fingerprint
        longer = lengthened(saved, now)
        if longer is not None:
            return longer
        keys = sorted(saved.keys() | now.keys())
        differing = [key for key in keys if key not in saved or key not in now or saved[key] != now[key]]
        if differing:
            shown = ", ".join(f"{key} (saved {_short(saved, key)}, now {_short(now, key)})" for key in differing)
            raise CheckpointError(
                f"{path}: written by another run; these differ: {shown}; restore them or choose another output_dir"
            )
        return None

    def tidy(self, newest: int, spared: int | None = None) -> None:
        """Remove what a killed run still had to remove after it saved the checkpoint `newest`; `spared` as in `save`.

        Raises:
            CheckpointError: it cannot be removed.
        """
        try:
            self._prune(newest, spared, keeps_later=True)
        except OSError as error:
            raise CheckpointError(f"{self.directory}: older checkpoints cannot be removed: {error}") from error

    def _prune(self, newest: int, spared: int | None, *, keeps_later: bool = False) -> None:
        num_kept = 0
        for step, path in list(self._candidates()):
            if step > newest and keeps_later:
                continue
            is_newest = step == newest and not path.name.endswith(REPLACED)
            if step == spared and step < newest and num_kept >= self.keep and _is_whole(path, step):
                spared = None  # one that was being replaced may follow under the same step
            elif is_newest or (step < newest and num_kept < self.keep and _is_whole(path, step)):
                num_kept += 1
            else:
                # Renamed first, so that a kill halfway never leaves a checkpoint with only some of its files.
                doomed = path.with_name(f"{path.name.removesuffix(REPLACED)}.tmp-pruned-{os.getpid()}")
                os.replace(path, doomed)
                remove(doomed)


def _is_whole(path: Path, step: int) -> bool:
    try:
        verify(path, step)
    except Damaged:
        return False
    return True


def _short(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key])[:80] if key in values else "nothing"
