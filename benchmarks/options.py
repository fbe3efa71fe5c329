"""Options that every benchmark has; a bad one exits with one line and status 2."""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from materials import DEFAULT_MODEL
from rlhf.config.reading.overrides import parse_overrides
from rlhf.errors import ConfigError, RlhfError

PAIRS = (3, 1)
"""How often the sides of a comparison run in turn: in full, and with `--quick`."""


class Parser(argparse.ArgumentParser):
    """Refuses a bad option in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Print the line and leave with status 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def parser_without_model(description: str | None) -> Parser:
    """Return a parser with the options that every benchmark has."""
    made = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--json", type=_writable, metavar="FILE", help="write the rows to this file, as a JSON list")
    made.add_argument("--quick", action="store_true", help="less work, a few rows: under a minute on 2 cores")
    return made


def parser(description: str | None) -> Parser:
    """Return a parser with the options of a benchmark that runs a model."""
    made = parser_without_model(description)
    made.add_argument("--model", default=DEFAULT_MODEL, help="a local model directory or fetch:NAME")
    return made


def add_turns(made: Parser) -> None:
    """Add the options of benchmarks whose sides are processes."""
    add_size(made, "--pairs", "how often the sides run in turn", PAIRS)
    made.add_argument("--timeout", type=positive, default=900, help="time limit of one process in seconds")
    made.add_argument("--only", default="", metavar="TEXT", help="only comparisons whose name contains this")
    made.add_argument(
        "--set", action="append", default=[], type=_override, metavar="KEY=VALUE", help="a key of our configuration"
    )


def add_dtype_and_seed(made: Parser, dtype_of: str, seed_of: str) -> None:
    """Add the options of benchmarks that compute with a model on random texts, each with its help."""
    made.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"), help=dtype_of)
    made.add_argument("--seed", type=positive, default=1, help=seed_of)


def add_size(made: Parser, option: str, what: str, sizes: tuple[int, int], **more: Any) -> None:
    """Add an option with a smaller default under `--quick`; `settle` fills it in."""
    full, quick = sizes
    text = f"{what} (default: {full}; with --quick {quick}, which is also the maximum)"
    made.add_argument(option, type=positive, default=argparse.SUPPRESS, help=text, **more)


def settle(made: Parser, options: Any, **sizes: tuple[int, int]) -> None:
    """Fill in missing sizes (in full, with `--quick`); refuse one that is too large for `--quick`."""
    for name, (full, quick) in sizes.items():
        given = getattr(options, name, None)
        if given is None:
            setattr(options, name, quick if options.quick else full)
        elif options.quick and given > quick:
            made.error(f"argument --{name.replace('_', '-')}: --quick takes at most {quick}, found {given}")


def refuse_only(made: Parser, options: Any) -> NoReturn:
    """Refuse an `--only` that matches no comparison."""
    among = " of --quick" if options.quick else ""
    made.error(f"argument --only: no comparison{among} contains {options.only!r}")


def has_goals(options: Any) -> bool:
    """Whether goals apply: they were set at full size for the default model, in our own precision and settings."""
    is_ours = options.dtype == "auto" and not getattr(options, "set", [])
    return is_ours and options.model == DEFAULT_MODEL and not options.quick


@contextmanager
def one_line_errors(made: Parser) -> Iterator[None]:
    """Turn errors such as an unusable model or a failed download into one line and their exit status."""
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
    """Exit with status 0, or 1 if not a single ratio was measured."""
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
