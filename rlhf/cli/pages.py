"""What `--help` and `--help-all` print for a verb, and the words that a shell completes after it."""

import argparse
from collections.abc import Mapping

from rlhf.cli.completion import Words
from rlhf.cli.verbs import STAGES
from rlhf.config.help import COMMON_KEYS, describe
from rlhf.config.reading.keys import INDEX, keys_of


def help_page(command: str, parser: argparse.ArgumentParser, *, every_key: bool) -> str:
    """Return the help of a verb that takes a configuration, with its commonest keys or with all."""
    if command not in STAGES:
        return parser.format_help()
    stage = STAGES[command]
    num, common = len(keys_of(stage.model)), COMMON_KEYS[stage.config]
    how = f"as lines of the file or as path.to.key=value ({INDEX} is the index of a list's item):"
    if every_key:
        return f"{parser.format_help()}\nAll {num} keys, {how}\n\n{describe(stage.model)}"
    head = f"The {len(common)} keys changed most, {how}"
    foot = f"rlhf {command} --help-all lists all {num}."
    return f"{parser.format_help()}\n{head}\n\n{describe(stage.model, only=common)}\n\n{foot}"


def completed_words(verbs: Mapping[str, argparse.ArgumentParser]) -> Words:
    """Return for each verb its options, and its keys as `data.path=`; an index in a path is 0."""
    words = {}
    for name, parser in verbs.items():
        flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
        words[name] = [*flags, *(_settings(name) if name in STAGES else [])]
    return words


def _settings(verb: str) -> list[str]:
    paths = [key.path for key in keys_of(STAGES[verb].model) if not key.is_section]
    return [".".join("0" if part == INDEX else part for part in path.split(".")) + "=" for path in paths]
