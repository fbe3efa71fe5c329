"""Whatever the files of a run hold, reading them gives a value or a documented error."""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odd_values import GARBAGE, as_json, damaged, file_content, trials
from rlhf.errors import CheckpointError
from rlhf.report.reading.run import read_run
from rlhf.training.storage import manifest as manifest_module
from rlhf.training.storage.checkpoint import CheckpointStore
from rlhf.training.storage.listing import LISTING, listed_files, not_ours
from rlhf.training.storage.manifest import MANIFEST
from rlhf.training.storage.run_directory import COMPLETE, RunDirectory, is_complete, settings_of_result
from rlhf.training.storage.schema import check_form
from rlhf.training.telemetry.circumstances import FILE, write_circumstances
from rlhf.training.telemetry.metrics import MetricsLog, saved_metrics

RUN = Path(__file__).parents[1] / "formats" / "format-2" / "ppo"
CHECKPOINT = RUN / "checkpoints" / "step-000002"
ROWS = [json.loads(line) for line in (RUN / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of a finished run, whose files the examples replace."""
    return Path(shutil.copytree(RUN, tmp_path_factory.mktemp("fuzz") / "ppo"))


def _good(path: Path) -> Any:
    return json.loads(path.read_text())


def _signed(manifest: Any) -> Any:
    """Give a manifest the sha256 that fits, as one has who means to deceive."""
    if not isinstance(manifest, dict):
        return manifest
    content = {key: value for key, value in manifest.items() if key != "sha256"}
    return {**content, "sha256": manifest_module._content_sha256(content)}


MANIFESTS = damaged(_good(CHECKPOINT / MANIFEST), ["half_life"])


@trials(150)
@given(content=MANIFESTS.map(_signed).map(as_json) | MANIFESTS.map(as_json) | GARBAGE)
def test_any_manifest_is_taken_or_refused(run: Path, content: bytes) -> None:
    store = CheckpointStore(run / "checkpoints", fingerprint=_good(CHECKPOINT / MANIFEST)["fingerprint"])
    path = store.path_of(2)
    (path / MANIFEST).write_bytes(content)
    with suppress(CheckpointError):
        store.latest(lambda line: None)
    with suppress(CheckpointError):
        store.open(path)


FORM = {"kl_coef": float, "running_scale": {"count": int, "mean": float}, "own": [{"score": float}]}
STATE = {"kl_coef": 0.1, "running_scale": {"count": 2, "mean": 1.5}, "own": [{"score": 1.0}, {"score": 2.0}]}


@trials(200)
@given(state=damaged(STATE, ["half_life"]))
def test_any_state_has_the_form_or_is_refused(state: Any) -> None:
    with suppress(CheckpointError):
        check_form("state.json", state, FORM)


LINES = st.lists(st.sampled_from(ROWS) | damaged(ROWS[0], ["not_finite"]), max_size=4)
METRICS = LINES.map(lambda rows: b"\n".join(map(as_json, rows))) | st.lists(GARBAGE, max_size=3).map(b"\n".join)


@trials(60)
@given(content=METRICS, ends=st.booleans())
def test_any_metrics_are_read_or_refused(run: Path, content: bytes, ends: bool) -> None:
    path = run / "metrics.jsonl"
    path.write_bytes(content + b"\n" * ends)
    with suppress(CheckpointError):
        saved_metrics(path)
    with suppress(CheckpointError):
        metrics = read_run(run).stages["ppo"].metrics
        for name in metrics.names:
            metrics.series(name).smoothed()
        metrics.not_finite()
    with suppress(CheckpointError), MetricsLog(path) as log:
        log.cut_back(2)
        log.problems(2, 2, 1)


@trials(100)
@given(content=file_content(_good(RUN / COMPLETE)))
def test_any_mark_of_completion_means_yes_or_no(run: Path, content: bytes) -> None:
    (run / COMPLETE).write_bytes(content)
    fingerprint = _good(RUN / COMPLETE)["fingerprint"]
    settings = _good(RUN / COMPLETE)["settings"]
    is_complete(run, fingerprint)
    settings_of_result(run)
    for now in (settings, {**settings, "steps": 9}):
        directory = RunDirectory(run, fingerprint=fingerprint, settings=now)
        with suppress(CheckpointError), directory:
            directory.refuse_to_start_over()


@trials(100)
@given(content=file_content(_good(RUN / "policy" / LISTING)))
def test_any_listing_tells_what_is_ours(run: Path, content: bytes) -> None:
    (run / "policy" / LISTING).write_bytes(content)
    listed_files(run / "policy")
    not_ours(run / "policy")


STARTS = {"starts": [{"time": "2026-11-30", "from_step": 2}]}


@trials(60)
@given(content=file_content({**_good(RUN / FILE), **STARTS}))
def test_any_circumstances_are_kept_or_begun_anew(run: Path, content: bytes) -> None:
    shutil.copy(RUN / "metrics.jsonl", run)
    (run / FILE).write_bytes(content)
    with suppress(CheckpointError):
        _ = read_run(run).stages["ppo"].resumed
    write_circumstances(run, {}, 2)
