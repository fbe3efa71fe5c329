"""Overrides from the command line (`ppo.kl_coef=0.02`), and sections in files of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.config.reading.yaml_text import parse_yaml, read_mapping
from rlhf.errors import ConfigError

MOST_KEYS = 50
"""In the path of one value, far more than any has."""
_FORM = re.compile(r"(?:--)?([A-Za-z_][\w-]*(?:\.[\w-]+)*)=(.*)", re.DOTALL)


@dataclass(frozen=True)
class Override:
    """One value from the command line."""

    path: tuple[str, ...]
    """The keys and list indexes that lead to the value."""
    value: object
    """The value, parsed as YAML."""


def is_override(argument: str) -> bool:
    """Tell whether a command line argument has the form `a.b=c` or `--a.b=c`."""
    return _FORM.fullmatch(argument) is not None


def parse_overrides(arguments: Sequence[str]) -> list[Override]:
    """Parse `a.b=c` (or `--a.b=c`), where c is YAML.

    Raises:
        ConfigError: one line for each argument that does not have this form.
    """
    overrides, problems = [], []
    for argument in arguments:
        match = _FORM.fullmatch(argument)
        if not match:
            problems.append(f"{argument}: not of the form path.to.key=value")
            continue
        path = tuple(match[1].split("."))
        if len(path) > MOST_KEYS:
            problems.append(f"{match[1][:40]}...: has {len(path)} keys, and no setting is inside of so many sections")
            continue
        try:
            overrides.append(Override(path, parse_yaml(match[2])))
        except ValueError as error:
            problems.extend(f"{match[1]}: {line}" for line in str(error).splitlines())
    _raise_all(problems)
    return overrides


def apply_overrides(mapping: dict[str, object], overrides: Sequence[Override]) -> dict[str, object]:
    """Return a copy of `mapping` with the overrides applied; later ones win.

    Raises:
        ConfigError: one line for each override that leads into something that is neither a section nor a list.
    """
    changed: object = mapping
    problems = []
    for override in overrides:
        try:
            changed = _with_value(changed, override.path, 0, override.value)
        except ValueError as error:
            problems.append(str(error))
    _raise_all(problems)
    assert isinstance(changed, dict)
    return changed


def inline_references(mapping: dict[str, object], keys: Sequence[str], directory: Path) -> dict[str, object]:
    """Return a copy of `mapping` with the content of the file in place of each of `keys` that names one.

    Args:
        mapping: a configuration in which a section may be the path of a YAML file.
        keys: the keys at the top that hold sections.
        directory: relative paths start here.

    Raises:
        ConfigError: a file cannot be read or is not YAML; all of them at once.
    """
    changed, problems = dict(mapping), []
    for key in keys:
        reference = mapping.get(key)
        if isinstance(reference, str):
            try:
                changed[key] = read_mapping(directory / reference)
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    return changed


def _with_value(container: object, path: tuple[str, ...], depth: int, value: object) -> object:
    """Return a copy of `container` with `value` at path[depth:]."""
    if depth == len(path):
        return value
    key, here = path[depth], ".".join(path[:depth])
    if isinstance(container, list):
        index = _index(container, key, here)
        return [*container[:index], _with_value(container[index], path, depth + 1, value), *container[index + 1 :]]
    if container is not None and not isinstance(container, dict):
        raise ValueError(f"{'.'.join(path)}: {here} holds {container!r}, not a section: set {here} as a whole")
    if container is None and key.isdecimal():
        raise ValueError(f"{'.'.join(path)}: there is no list at {here}: set {here}=[...] as a whole")
    section = container or {}
    return {**section, key: _with_value(section.get(key), path, depth + 1, value)}


def _index(items: list[object], key: str, here: str) -> int:
    if not key.isdecimal():
        raise ValueError(f"{here}.{key}: {here} is a list: give an index ({here}.0) or set it as a whole")
    if int(key) >= len(items):
        raise ValueError(f"{here}.{key}: {here} holds {len(items)} items, counted from 0")
    return int(key)


def _raise_all(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigError("\n".join(f"config error: command line: {problem}" for problem in problems))
