"""One command from its arguments to its exit status: errors become lines on standard error."""

import argparse
import importlib
import io
import json
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from rlhf.allocator import keep_memory
from rlhf.cli.completion import install
from rlhf.cli.lasting import lasting_output, let_go
from rlhf.cli.options import Parser, check_verb, make_parser, split
from rlhf.cli.pages import completed_words, help_page
from rlhf.cli.verbs import STAGES, verb_of
from rlhf.config.reading.loader import config_yaml, load_config
from rlhf.errors import ConfigError, DataError, RlhfError
from rlhf.lab.options import LabOptions
from rlhf.plan.options import PlanOptions
from rlhf.printable import printable
from rlhf.recipes import write_recipe
from rlhf.report.options import ExportOptions, ReportOptions, WatchOptions
from rlhf.serving.options import ServingOptions

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT."""
BROKEN_PIPE = 141
"""Exit status when the reader of our output is gone: 128 + SIGPIPE."""
_LIBRARIES = r"(accelerate|datasets|huggingface_hub|numpy|peft|rlhf|sklearn|tokenizers|torch|transformers)(\.|$)"
"""Modules whose FutureWarnings are for us; those of a user's own code are shown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors become lines on standard error.

    Args:
        arguments: without the program's name; None takes them from the command line.

    Returns:
        0, an error's own status, 1 after an exception that is not ours, 130 after Ctrl-C, 141 when the reader of a
        verb that prints its result is gone.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not sys.warnoptions:  # who asks Python for warnings gets them
        warnings.filterwarnings("ignore", category=FutureWarning, module=_LIBRARIES)
    with lasting_output(next((word for word in arguments if not word.startswith("-")), None)):
        return _answered(arguments)


def console(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command as a program of its own, which ends with the command's status.

    Python takes a moment to end after that, longer where a thread still waits for a server. A Ctrl-C then ends the
    process at once, with the same status and without a traceback.
    """
    keep_memory()
    status = 1  # of an exception that `--debug` lets through
    try:
        status = main(arguments)
    finally:
        signal.signal(signal.SIGINT, lambda *_: os._exit(status))
    sys.exit(status)


def _answered(arguments: Sequence[str]) -> int:
    try:
        _dispatch(arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        let_go(sys.stdout)
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            raise
        _report(error)
        return _status(error)


def _dispatch(arguments: Sequence[str]) -> None:
    rest, overrides = split(arguments)
    parser, verbs = make_parser()
    check_verb(rest, list(verbs))
    options = parser.parse_args(rest)
    command: str | None = options.command
    if options.install_completion is not None:
        for line in install(options.install_completion or None, completed_words(verbs)):
            print(printable(line))
    elif command is None:
        parser.error("the following arguments are required: VERB")
    elif command in _WITHOUT_CONFIG:
        _print_path(_WITHOUT_CONFIG[command](options, overrides))
    elif options.help or options.help_all:
        print(help_page(command, verbs[command], every_key=options.help_all))
    else:
        _run(command, verbs[command], options, overrides)


def _run(command: str, parser: Parser, options: argparse.Namespace, overrides: list[str]) -> None:
    """Run a verb that takes a configuration."""
    if getattr(options, "model", None) is not None:
        overrides.insert(0, f"model={json.dumps(options.model)}")
    if getattr(options, "judge", None) is not None:
        is_section = options.judge.lstrip().startswith("{")
        overrides.insert(0, f"judge={options.judge if is_section else json.dumps(options.judge)}")
    if options.config is None and (command == "validate" or not overrides):
        parser.error("nothing to run: give --config FILE, or path.to.key=value for every key that has no default")
    if command == "validate":
        stage = STAGES[options.verb or verb_of(options.config)]
        print(config_yaml(load_config(stage.model, options.config, overrides)), end="")
        return
    if getattr(options, "frontier", None) is not None:
        config = load_config(STAGES[command].model, options.config, ["policies={all: of-the-run}", *overrides])
        _print_path(importlib.import_module("rlhf.frontier").trace(config, options.frontier))
        return
    chosen = {"profile": True} if getattr(options, "profile", False) else {}
    _print_path(STAGES[command].run(options.config, overrides, **chosen))


def _fetched(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    module = importlib.import_module("rlhf.fetch")
    names = [*options.names, *overrides]
    if not names:
        for name, artifact in module.catalogue().items():
            print(f"{name}: {printable(artifact.description)}")
    for name in names:
        _print_path(module.fetch(name))


def _initialised(options: argparse.Namespace, _: Sequence[str]) -> None:
    path = write_recipe(options.recipe, options.directory)
    folder = printable(str(path.parent))
    print(f"wrote the recipe {options.recipe} into {folder}")
    print(f"start it with: cd {shlex.quote(folder)} && rlhf run --config {path.name}")


_WITHOUT_CONFIG: dict[str, Callable[[argparse.Namespace, Sequence[str]], object]] = {
    "init": _initialised,
    "fetch": _fetched,
    "merge": lambda options, _: importlib.import_module("rlhf.merge").merge(options.adapter, options.output),
    "serve-reward": lambda options, _: importlib.import_module("rlhf.serving").serve(ServingOptions.of(options)),
    "report": lambda options, _: importlib.import_module("rlhf.report").report(ReportOptions.of(options)),
    "plan": lambda options, keys: importlib.import_module("rlhf.plan").plan(PlanOptions.of(options, list(keys))),
    "watch": lambda options, _: importlib.import_module("rlhf.report").watch(WatchOptions.of(options)),
    "export-metrics": lambda options, _: importlib.import_module("rlhf.report").export_metrics(
        ExportOptions.of(options)
    ),
    "lab": lambda options, _: importlib.import_module("rlhf.lab").run(LabOptions.of(options)),
}
"""The verbs that take no configuration; each returns the path of its results, or None."""


def _print_path(result: object) -> None:
    """Print where the results are, once for all processes."""
    if result is not None and os.environ.get("RANK", "0") == "0":
        print(f"results: {printable(str(result))}")


def _report(error: BaseException) -> None:
    """Print an error once if every process gets it; otherwise name the process, as only one may have got it."""
    rank = os.environ.get("RANK", "0")
    if rank != "0" and isinstance(error, ConfigError | DataError):
        return
    for line in _error_lines(error):
        print(printable(line if rank == "0" else f"process {rank}: {line}"), file=sys.stderr)


def _error_lines(error: BaseException) -> list[str]:
    if isinstance(error, KeyboardInterrupt):
        return ["error: interrupted"]
    if isinstance(error, RlhfError):
        lines = str(error).splitlines() or [type(error).__name__]
        return [line if line.startswith("config error:") else f"error: {line}" for line in lines]
    summary = f"{type(error).__name__}: {error}".splitlines()[0]
    return [f"error: {summary} (run again with --debug for the traceback)"]


def _status(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return error.exit_status if isinstance(error, RlhfError) else 1
