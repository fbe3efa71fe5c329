"""Runs the chosen experiments one after the other, and updates the page after each."""

import importlib
import os
import time
from pathlib import Path

from rlhf.errors import CheckpointError, ConfigError
from rlhf.lab.experiments import EXPERIMENTS
from rlhf.lab.options import LabOptions
from rlhf.lab.page import PAGE, Result, write_page, written_files
from rlhf.lab.section import Section
from rlhf.training.storage.fingerprint import json_digest
from rlhf.training.storage.run_directory import RunDirectory, is_complete


def study(options: LabOptions) -> Path:
    """Run the experiments, printing the finding of each, and return the page.

    If the directory holds the complete result of the same options, nothing runs; if it holds another result, that is
    an error; an interrupted study starts over.

    Raises:
        ConfigError: there are several processes.
        CheckpointError: the output directory cannot be used.
        RlhfError: an experiment failed; the page has the earlier ones.
    """
    if (num := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise ConfigError(f"lab runs in one process, {num} started - call it without a launcher")
    page = options.output_dir / PAGE
    mark = json_digest([list(options.names), options.settings.seed, options.settings.model, options.settings.quick])
    if is_complete(options.output_dir, mark):
        print(f"{options.output_dir}: complete, nothing to do", flush=True)
        return page
    with RunDirectory(options.output_dir, fingerprint=mark) as directory:
        results: list[Result] = []
        for name in options.names:
            print(f"== {name}", flush=True)
            started = time.perf_counter()
            section: Section = importlib.import_module(EXPERIMENTS[name]).run(options.settings)
            results.append(Result(section=section, seconds=time.perf_counter() - started))
            print(f"{section.finding}\n== {name}: after {results[-1].seconds:.0f} s", flush=True)
            _write(options, results)
        directory.mark_complete(written_files(options.output_dir, results))
    return page


def _write(options: LabOptions, results: list[Result]) -> None:
    try:
        write_page(options.output_dir, results, options.settings)
    except OSError as error:
        raise CheckpointError(f"{options.output_dir}: cannot be written: {error.strerror or error}") from error
