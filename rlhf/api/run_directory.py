"""The directory of a run from Python: one that stays, or a temporary one."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rlhf.errors import Terminated
from rlhf.stage.frame import Frame, entered, fingerprint_with, named_settings
from rlhf.training.storage.run_directory import RunDirectory


@contextmanager
def run_in(output_dir: Path | None, run: Frame, inputs: Sequence[str], stage: str) -> Iterator[Frame]:
    """Enter a run directory.

    Args:
        output_dir: None takes a temporary directory.
        run: with its processes joined and the config of this run, in no directory yet.
        inputs: digests of what determines the result besides the config.
        stage: the name of the run.

    Raises:
        CheckpointError: the directory cannot be used.
    """
    if output_dir is None:
        with tempfile.TemporaryDirectory(prefix="rlhf-") as path:
            directory = RunDirectory(Path(path) / stage, fingerprint="", is_main=run.processes.is_main)
            with _unsaved(), entered(replace(run, directory=directory), stage) as entering:
                yield entering
        return
    named = run.directory  # as `joined` made it; fingerprint and length are new
    directory = RunDirectory(
        output_dir,
        fingerprint=fingerprint_with(run.config, inputs),
        settings=named_settings(run.config),
        resume=named.resume,
        is_main=named.is_main,
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
