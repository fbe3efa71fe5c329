"""What stands on a command line: the options of every verb, and overrides anywhere between them."""

import argparse
import difflib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from rlhf.cli.completion import SHELLS
from rlhf.cli.verbs import STAGES
from rlhf.config.reading.overrides import is_override
from rlhf.errors import ConfigError
from rlhf.lab import options as lab_options
from rlhf.plan import options as plan_options
from rlhf.recipes import recipes
from rlhf.report import options as report_options
from rlhf.serving import options as serving_options

DISTRIBUTION = "rlhf-ppo"
"""The name under which the package is installed."""
_WITH_VALUE = ("--config", "--verb", "--recipe", "--hardware", "--shape", "--frontier", "--judge")
"""Options that take a value, which is never an override."""


class Parser(argparse.ArgumentParser):
    """ArgumentParser that takes options only by their full names, and raises our errors."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exiting."""
        raise ConfigError(f"{message} (see {self.prog} --help)")


def make_parser() -> tuple[Parser, dict[str, Parser]]:
    """Build the parser, and return it with the parser of each verb."""
    parser = Parser(prog="rlhf", description="RLHF finetuning of language models: one verb per stage, `run` for all.")
    parser.add_argument("--version", action="version", version=f"rlhf {_version()}")
    parser.add_argument(
        "--install-completion",
        nargs="?",
        const="",
        metavar="SHELL",
        help=f"complete verbs and keys with TAB in {', '.join(SHELLS)} (default: your own shell)",
    )
    group = parser.add_subparsers(dest="command", metavar="VERB", parser_class=Parser)
    summaries = {name: stage.summary for name, stage in STAGES.items()}
    summaries["validate"] = "check a configuration and print it with every default"
    verbs = {
        name: group.add_parser(name, help=text, description=f"{name}: {text}", add_help=False)
        for name, text in summaries.items()
    }
    _add_options_of_stages(verbs)
    verbs["init"] = group.add_parser("init", help="write a recipe to start from into a new directory")
    verbs["init"].add_argument("directory", metavar="DIR", type=Path, help="new or empty")
    verbs["init"].add_argument(
        "--recipe", default="quickstart", metavar="NAME", help=f"{', '.join(recipes())} (default: %(default)s)"
    )
    verbs["fetch"] = group.add_parser("fetch", help="download models and data by name; without a name, list them")
    verbs["fetch"].add_argument("names", nargs="*", metavar="NAME", help="what to download")
    verbs["merge"] = group.add_parser("merge", help="add an adapter to its base: one model directory")
    verbs["merge"].add_argument("adapter", metavar="ADAPTER", help="adapter directory or hub name")
    verbs["merge"].add_argument("output", metavar="OUT", type=Path, help="directory to write")
    verbs["serve-reward"] = group.add_parser(
        "serve-reward", help="score responses over HTTP, for PPO on other machines"
    )
    serving_options.add_options(verbs["serve-reward"])
    verbs["report"] = group.add_parser("report", help="write one HTML page about a run, or about several side by side")
    report_options.add_options(verbs["report"])
    verbs["plan"] = group.add_parser("plan", help="what PPO would need on accelerators: memory, time and cost")
    plan_options.add_options(verbs["plan"])
    verbs["watch"] = group.add_parser("watch", help="serve that page on 127.0.0.1, and follow a run that is going on")
    report_options.add_watch_options(verbs["watch"])
    verbs["export-metrics"] = group.add_parser("export-metrics", help="write a run's metrics as other tools read them")
    report_options.add_export_options(verbs["export-metrics"])
    verbs["lab"] = group.add_parser("lab", help="measure what the lecture says, and write one page with figures")
    lab_options.add_options(verbs["lab"])
    for verb in verbs.values():
        verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser, verbs


def _add_options_of_stages(verbs: dict[str, Parser]) -> None:
    """Declare the options of the verbs that take a configuration."""
    for verb in verbs.values():
        verb.usage = f"{verb.prog} [--config FILE] [path.to.key=value ...] [--debug]"
        verb.add_argument("--config", type=Path, metavar="FILE", help="the YAML file")
        verb.add_argument("-h", "--help", action="store_true", help="show this help and the keys changed most")
        verb.add_argument("--help-all", action="store_true", help="show this help and every key")
    for name in ("generate", "chat", "sample-pairs"):
        verbs[name].usage = f"{verbs[name].prog} [MODEL] [--config FILE] [path.to.key=value ...] [--debug]"
        verbs[name].add_argument("model", nargs="?", metavar="MODEL", help="directory, fetch:NAME or hub name")
    for name in ("label", "score"):
        verbs[name].usage = f"{verbs[name].prog} [--judge JUDGE] [--config FILE] [path.to.key=value ...] [--debug]"
        verbs[name].add_argument(
            "--judge", metavar="JUDGE", help="a reward model, or the keys of any judge: '{kind: length, at_most: 40}'"
        )
    verbs["validate"].usage = f"{verbs['validate'].prog} --config FILE [--verb VERB] [path.to.key=value ...] [--debug]"
    verbs["validate"].add_argument(
        "--verb", choices=STAGES, help="whose configuration it is (default: the file's name)"
    )
    verbs["evaluate"].usage = str(verbs["evaluate"].usage).replace("[--debug]", "[--frontier RUN] [--debug]")
    verbs["evaluate"].add_argument(
        "--frontier",
        type=Path,
        metavar="RUN",
        help="score every checkpoint of a PPO run, and best-of-n, by proxy and gold against the KL",
    )
    for name in (name for name, stage in STAGES.items() if stage.is_profiled):
        verbs[name].usage = str(verbs[name].usage).replace("[--debug]", "[--profile] [--debug]")
        verbs[name].add_argument("--profile", action="store_true", help="measure where the time of training goes")


def check_verb(arguments: Sequence[str], verbs: Sequence[str]) -> None:
    """Refuse a verb that does not exist, and name the nearest.

    Raises:
        ConfigError: names it, and all verbs.
    """
    if not arguments or arguments[0].startswith("-") or arguments[0] in verbs:
        return
    near = difflib.get_close_matches(arguments[0], verbs, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"{arguments[0]}: no such verb{hint}; the verbs are {', '.join(verbs)}")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate the overrides, which may be anywhere, from what argparse reads; some verbs have none."""
    if arguments[:1] in (["serve-reward"], ["lab"], ["report"], ["watch"], ["export-metrics"]):
        return list(arguments), []
    rest: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_option = argument.partition("=")[0] in _WITH_VALUE or (rest and rest[-1] in _WITH_VALUE)
        (overrides if is_override(argument) and not is_option else rest).append(argument)
    return rest, overrides


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "(not installed)"
