"""The options of `rlhf report`, `rlhf watch` and `rlhf export-metrics`; importable without torch."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rlhf.errors import ConfigError

REPORT = "report.html"
FORMATS = ("csv", "jsonl", "rldoctor", "rlprobe")
"""Of exported metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Which runs are shown, and where the page or the figure goes."""

    runs: tuple[Path, ...]
    output: Path | None = None
    """None: `report.html` in the first run."""
    figure: Path | None = None
    """Write this SVG in place of the page."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.figure is not None and len(self.runs) > 1:
            raise ConfigError(f"report: --figure shows one run, got {len(self.runs)}: name one RUN")
        if self.figure is not None and self.output is not None:
            raise ConfigError("report: give --output for the page or --figure for the figure, not both")

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Return the options of a parsed command line."""
        return cls(runs=tuple(options.runs), output=options.output, figure=options.figure)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """Which runs are followed, and at which port."""

    runs: tuple[Path, ...]
    port: int = 0
    """0 takes a free one."""

    def __post_init__(self) -> None:
        """Refuse what is no port."""
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"watch: --port: must be in [0, 65535], got {self.port}")

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Return the options of a parsed command line."""
        return cls(runs=tuple(options.runs), port=options.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Which metrics are written, how, and where to."""

    run: Path
    format: str
    stage: str | None = None
    """None: PPO, else the last stage with metrics."""
    output: Path | None = None
    """None: a name that tells stage and format, in the run."""

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Return the options of a parsed command line."""
        return cls(run=options.run, format=options.format, stage=options.stage, output=options.output)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rlhf report`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="directory of a recipe or of one stage; two are compared")
    add("--output", type=Path, metavar="FILE", help=f"where the page goes ({REPORT} in the first RUN)")
    add("--figure", type=Path, metavar="OUT.svg", help="write only a figure of reward, KL and win rate")


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rlhf watch`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="directory of a recipe or of one stage; it may be empty yet")
    add("--port", type=int, default=0, help="port on 127.0.0.1 (default: a free one)")


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rlhf export-metrics`."""
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="directory of a recipe or of one stage")
    add("--format", choices=FORMATS, default="csv", help="csv, jsonl, or the form of another tool (%(default)s)")
    add("--stage", choices=("sft", "reward_model", "ppo"), help="of a recipe (default: ppo)")
    add("--output", type=Path, metavar="PATH", help="file, of rlprobe directory (default: in RUN)")
