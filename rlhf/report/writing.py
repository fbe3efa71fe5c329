"""Writes the page of runs, or the figure of one."""

from pathlib import Path

from rlhf.report.figure import figure_svg
from rlhf.report.options import REPORT, ReportOptions
from rlhf.report.page import html
from rlhf.report.reading.run import read_run
from rlhf.training.storage.atomic import write_output


def write(options: ReportOptions) -> Path:
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


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False
