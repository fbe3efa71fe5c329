"""`rlhf report`: one HTML file, or one figure, that shows what became of a policy, from the files of any run.

Belongs here: reading what a run left, judging it (`findings/`), drawing it (`charts/`), showing it (`sections/`,
`templates/`). Nothing here trains, loads a model, or needs torch.
"""

from pathlib import Path

from rlhf.report.figure import figure_svg
from rlhf.report.options import REPORT, ReportOptions
from rlhf.report.page import html
from rlhf.report.reading.run import read_run
from rlhf.training.storage.atomic import write_output

__all__ = ["report", "write_report"]


def report(options: ReportOptions) -> Path:
    """Write the page, or the figure, that the options name, and return its path.

    Raises:
        ConfigError: a directory holds no run.
        CheckpointError: a file cannot be read or written.
    """
    if options.figure is not None:
        write_output(options.figure, figure_svg(read_run(options.runs[0])))
        return options.figure
    output = options.output or options.runs[0] / REPORT
    text = html([read_run(path) for path in options.runs])
    if not _holds(output, text):  # a run that is complete stays as it is
        write_output(output, text)
    return output


def write_report(directory: Path) -> Path:
    """Write the page of the run in a directory into it, and return the page's path.

    Raises:
        ConfigError: the directory holds no run.
        CheckpointError: a file cannot be read or written.
    """
    return report(ReportOptions(runs=(directory,)))


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
