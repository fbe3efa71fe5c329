"""The directory in which a run from Python works: one that stays, or one that is gone afterwards."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rlhf.config import PPOSettings
from rlhf.errors import CheckpointError, Terminated
from rlhf.stage import Frame, entered, fingerprint_with
from rlhf.training.storage.run_directory import RunDirectory, is_complete


@contextmanager
def run_in(output_dir: Path | None, run: Frame, config: PPOSettings, inputs: Sequence[str]) -> Iterator[Frame]:
    """Enter a run directory; `inputs` are digests of what decides the result besides the config.

    Raises:
        CheckpointError: the result of this very run is there already, or the directory cannot be used.
    """
    if output_dir is None:
        with tempfile.TemporaryDirectory(prefix="rlhf-") as path:
            directory = RunDirectory(Path(path) / "run", fingerprint="", is_main=run.processes.is_main)
            with _unsaved(), entered(replace(run, directory=directory), "ppo") as entering:
                yield entering
        return
    mark = fingerprint_with(config, inputs)
    if is_complete(output_dir, mark):
        raise CheckpointError(
            f"{output_dir}: holds the complete result of this very run - its policy is in {output_dir / 'policy'}; "
            "choose another output_dir to train again"
        )
    directory = RunDirectory(
        output_dir, fingerprint=mark, resume=config.checkpoints.resume, is_main=run.processes.is_main
    )
    with entered(replace(run, directory=directory)) as entering:
        yield entering


@contextmanager
def _unsaved() -> Iterator[None]:
    try:
        yield
    except Terminated as stop:
        stopped = Terminated("stopped by a signal; without output_dir nothing was saved")
        stopped.exit_status = stop.exit_status
        raise stopped from None
