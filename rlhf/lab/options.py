"""The options of `rlhf lab`; importable without torch."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rlhf.lab.experiments import EXPERIMENTS
from rlhf.lab.section import Settings

_DEFAULTS = Settings()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """Which experiments run, and where their page goes."""

    output_dir: Path
    names: tuple[str, ...]
    """Names of the experiments, in the order of the page."""
    settings: Settings

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """Return the options of a parsed command line."""
        return cls(
            output_dir=Path(options.output_dir),
            names=tuple(name for name in EXPERIMENTS if options.only is None or name in options.only),
            settings=Settings(seed=options.seed, model=options.model, quick=options.quick),
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `rlhf lab`."""
    add = parser.add_argument
    add("--output-dir", default="runs/lab", metavar="DIR", help="where lab.md and its figures go (%(default)s)")
    listed = ", ".join(EXPERIMENTS)
    add("--only", nargs="+", choices=EXPERIMENTS, metavar="NAME", help=f"experiments to run: {listed} (all)")
    add("--seed", type=int, default=_DEFAULTS.seed, help="seed of all randomness (%(default)s)")
    add("--model", default=_DEFAULTS.model, help="model of the language-model experiments (%(default)s)")
    add("--quick", action="store_true", help="tiny sizes: takes seconds, and the numbers mean little")
