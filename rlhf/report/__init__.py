"""`rlhf report`: one HTML file, or one figure, that shows what became of a policy, from the files of any run.

Belongs here: reading what a run left, judging it (`findings/`), drawing it (`charts/`), showing it (`sections/`,
`templates/`). Nothing here trains, loads a model, or needs torch.
"""

import importlib
from pathlib import Path

from rlhf.report.options import ExportOptions, ReportOptions, WatchOptions

__all__ = ["ExportOptions", "ReportOptions", "WatchOptions", "export_metrics", "report", "watch", "write_report"]


def report(options: ReportOptions) -> Path:
    """Write the page, or the figure, that the options name, and return its path.

    Raises:
        ConfigError: a directory holds no run.
        CheckpointError: a file cannot be read or written.
    """
    path: Path = importlib.import_module("rlhf.report.writing").write(options)  # the command line reads options alone
    return path


def write_report(directory: Path) -> Path:
    """Write the page of the run in a directory into it, and return the page's path.

    Raises:
        ConfigError: the directory holds no run.
        CheckpointError: a file cannot be read or written.
    """
    return report(ReportOptions(runs=(directory,)))


def watch(options: WatchOptions) -> None:
    """Serve the page of runs on this machine while they go on, until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is taken, or a directory has no place on this machine.
    """
    importlib.import_module("rlhf.report.watching.server").watch(options)


def export_metrics(options: ExportOptions) -> Path:
    """Write a run's metrics as another tool reads them, and return the path.

    Raises:
        ConfigError: there is no run, or it has no metrics.
        CheckpointError: a file cannot be read or written.
    """
    path: Path = importlib.import_module("rlhf.report.export").export_metrics(options)
    return path
