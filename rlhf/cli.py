"""The command line: read a configuration, call a stage, print where the results are."""

import argparse
import importlib
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel

from rlhf.config.help import describe
from rlhf.config.reading.loader import config_yaml, load_config
from rlhf.config.reading.overrides import is_override
from rlhf.config.schema_files import SCHEMAS
from rlhf.errors import ConfigError, DataError, RlhfError
from rlhf.lab import options as lab_options
from rlhf.printable import printable
from rlhf.serving.options import ServingOptions, add_options

DISTRIBUTION = "rlhf-ppo"
"""The name under which the package is installed."""
INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT."""
_OPTIONS = ("--config", "--verb")
"""Options that take a value, which is never an override."""
BROKEN_PIPE = 141
"""Exit status when the reader of our output is gone: 128 + SIGPIPE."""


@dataclass(frozen=True)
class Stage:
    """A verb that takes a configuration; its code is imported only when it runs, so help and errors are fast."""

    config: str
    """Name of its schema: a key of SCHEMAS, and the usual name of its YAML file."""
    module: str
    """Module of the function that runs it."""
    function: str
    """Name of that function; it takes the configuration and returns the path of its results, or None."""
    summary: str
    """One line for the help."""
    is_profiled: bool = False
    """Whether it takes `--profile`."""

    @property
    def model(self) -> type[BaseModel]:
        """The schema."""
        return SCHEMAS[self.config]

    def run(self, path: Path | None, overrides: Sequence[str], **options: bool) -> object:
        """Check the configuration, then run the stage."""
        config = load_config(self.model, path, overrides)
        return getattr(importlib.import_module(self.module), self.function)(config, **options)


STAGES = {
    "sft": Stage("sft", "rlhf.sft", "train_sft", "supervised finetuning on demonstrations (behaviour cloning)", True),
    "reward-model": Stage(
        "reward_model", "rlhf.reward_model", "train_reward_model", "train a reward model on preference pairs", True
    ),
    "ppo": Stage("ppo", "rlhf.ppo", "train_ppo", "optimise a policy with PPO against rewards", True),
    "doctor": Stage("ppo", "rlhf.doctor", "examine", "examine a PPO run before it starts; writes nothing"),
    "generate": Stage("generate", "rlhf.evaluation.generate", "generate", "answer prompts, as JSONL"),
    "chat": Stage("generate", "rlhf.evaluation.chat", "chat", "talk to a model in the terminal"),
    "evaluate": Stage("evaluate", "rlhf.evaluation", "evaluate", "compare policies on the same held-out prompts"),
    "run": Stage("run", "rlhf.pipeline", "run", "run a whole recipe, skipping the stages that are complete", True),
}
"""The verbs that take a configuration."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; errors become lines on standard error.

    Args:
        arguments: without the program's name; None takes them from the command line.

    Returns:
        0, an error's own status, 1 after an exception that is not ours, 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _dispatch(arguments)
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - stays open until the process ends
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            raise
        _report(error)
        return _status(error)


def verb_of(path: Path) -> str:
    """Return the verb whose configuration a file holds, by the file's name: `ppo.yaml`, `reward_model.yaml`.

    Raises:
        ConfigError: the name is not that of a verb.
    """
    verb = path.stem.replace("_", "-")
    if verb not in STAGES:
        raise ConfigError(f"config error: {path}: the file's name is no verb: add --verb, one of {', '.join(STAGES)}")
    return verb


class _Parser(argparse.ArgumentParser):
    """ArgumentParser that takes options only by their full names, and raises our errors."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise ConfigError(f"{message} (see {self.prog} --help)")


def _parser() -> tuple[_Parser, dict[str, _Parser]]:
    """Build the parser, and return it with the parser of each verb."""
    parser = _Parser(prog="rlhf", description="RLHF finetuning of language models: one verb per stage, `run` for all.")
    parser.add_argument("--version", action="version", version=f"rlhf {_version()}")
    group = parser.add_subparsers(dest="command", metavar="VERB", required=True, parser_class=_Parser)
    summaries = {name: stage.summary for name, stage in STAGES.items()}
    summaries["validate"] = "check a configuration and print it with every default"
    verbs = {name: group.add_parser(name, help=text, add_help=False) for name, text in summaries.items()}
    for verb in verbs.values():
        verb.usage = f"{verb.prog} [--config FILE] [path.to.key=value ...] [--debug]"
        verb.add_argument("--config", type=Path, metavar="FILE", help="the YAML file")
        verb.add_argument("-h", "--help", action="store_true", help="show this help and every key")
    for name in ("generate", "chat"):
        verbs[name].usage = f"{verbs[name].prog} [MODEL] [--config FILE] [path.to.key=value ...] [--debug]"
        verbs[name].add_argument("model", nargs="?", metavar="MODEL", help="directory, fetch:NAME or hub name")
    verbs["validate"].usage = f"{verbs['validate'].prog} --config FILE [--verb VERB] [path.to.key=value ...] [--debug]"
    verbs["validate"].add_argument(
        "--verb", choices=STAGES, help="whose configuration it is (default: the file's name)"
    )
    for name in (name for name, stage in STAGES.items() if stage.is_profiled):
        verbs[name].usage = str(verbs[name].usage).replace("[--debug]", "[--profile] [--debug]")
        verbs[name].add_argument("--profile", action="store_true", help="measure where the time of training goes")
    verbs["fetch"] = group.add_parser("fetch", help="download models and data by name; without a name, list them")
    verbs["fetch"].add_argument("names", nargs="*", metavar="NAME", help="what to download")
    verbs["merge"] = group.add_parser("merge", help="add an adapter to its base: one model directory")
    verbs["merge"].add_argument("adapter", metavar="ADAPTER", help="adapter directory or hub name")
    verbs["merge"].add_argument("output", metavar="OUT", type=Path, help="directory to write")
    verbs["serve-reward"] = group.add_parser(
        "serve-reward", help="score responses over HTTP, for PPO on other machines"
    )
    add_options(verbs["serve-reward"])
    verbs["lab"] = group.add_parser("lab", help="measure what the lecture says, and write one page with figures")
    lab_options.add_options(verbs["lab"])
    for verb in verbs.values():
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser, verbs


def _dispatch(arguments: Sequence[str]) -> None:
    rest, overrides = _split(arguments)
    parser, verbs = _parser()
    options = parser.parse_args(rest)
    command: str = options.command
    if getattr(options, "model", None) is not None and command in STAGES:
        overrides.insert(0, f"model={json.dumps(options.model)}")
    if command in _WITHOUT_CONFIG:
        _print_path(_WITHOUT_CONFIG[command](options, overrides))
    elif options.help:
        _show_help(command, verbs[command])
    elif options.config is None and (command == "validate" or not overrides):
        verbs[command].error(
            "nothing to run: give --config FILE, or path.to.key=value for every key that has no default"
        )
    elif command == "validate":
        stage = STAGES[options.verb or verb_of(options.config)]
        print(config_yaml(load_config(stage.model, options.config, overrides)), end="")
    else:
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


_WITHOUT_CONFIG: dict[str, Callable[[argparse.Namespace, Sequence[str]], object]] = {
    "fetch": _fetched,
    "merge": lambda options, _: importlib.import_module("rlhf.merge").merge(options.adapter, options.output),
    "serve-reward": lambda options, _: importlib.import_module("rlhf.serving").serve(ServingOptions.of(options)),
    "lab": lambda options, _: importlib.import_module("rlhf.lab").run(lab_options.LabOptions.of(options)),
}
"""The verbs that take no configuration; each returns the path of its results, or None."""


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the overrides, which may be anywhere, from what argparse reads; two verbs have none."""
    if arguments[:1] in (["serve-reward"], ["lab"]):
        return list(arguments), []
    rest: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_option = argument.partition("=")[0] in _OPTIONS or (rest and rest[-1] in _OPTIONS)
        (overrides if is_override(argument) and not is_option else rest).append(argument)
    return rest, overrides


def _show_help(command: str, parser: argparse.ArgumentParser) -> None:
    print(parser.format_help())
    if command in STAGES:
        print("Keys of the file, and of path.to.key=value (N is the index of a list's item):\n")
        print(describe(STAGES[command].model))


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


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
