"""Options that every benchmark has, and how a bad one is refused: one line, status 2."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from materials import DEFAULT_MODEL
from rlhf.config.overrides import parse_overrides
from rlhf.errors import ConfigError, RlhfError


class Parser(argparse.ArgumentParser):
    """Refuses a bad option in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with status 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parser(description: str | None) -> Parser:
    """Return a parser with the common options."""
    made = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--json", type=_writable, metavar="FILE", help="write the rows there, as a JSON list")
    made.add_argument("--quick", action="store_true", help="less work, a few rows: under a minute on 2 cores")
    made.add_argument("--model", default=DEFAULT_MODEL, help="a local model directory or fetch:NAME")
    return made


def add_turns(made: Parser) -> None:
    """Add the options of benchmarks whose sides are processes."""
    made.add_argument("--pairs", type=positive, default=3, help="how often the sides run in turn")
    made.add_argument("--timeout", type=positive, default=900, help="seconds that one process may take")
    made.add_argument("--only", default="", metavar="TEXT", help="only comparisons whose name contains this")
    made.add_argument(
        "--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help="a key of our configuration"
    )


@contextmanager
def one_line_errors(made: Parser) -> Iterator[None]:
    """Turn a model that cannot be used, a failed download and the like into one line and their exit status."""
    try:
        yield
    except RlhfError as problem:
        made.exit(problem.exit_status, f"{made.prog}: {problem}\n")
    except (OSError, ValueError) as problem:
        made.error(str(problem))


def positive(text: str) -> int:
    """Read a whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def finish(num_ratios: int) -> NoReturn:
    """Leave with status 0, or 1 when not a single ratio was measured."""
    sys.exit(0 if num_ratios else 1)


def _writable(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a directory that exists, found {text!r}")
    return path


def _override(text: str) -> str:
    try:
        parse_overrides([text])
    except ConfigError:
        raise argparse.ArgumentTypeError(f"expected path.to.key=value, with a value in YAML, found {text!r}") from None
    return text
