"""YAML for configurations: safe, `1e-5` is a number, no duplicate keys, nothing that JSON cannot hold."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from rlhf.errors import ConfigError

_FLOAT_TAG = "tag:yaml.org,2002:float"
_FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
        |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
        |[-+]?\.(?:inf|Inf|INF)
        |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
"""Numbers with a point or an exponent, as YAML 1.2 has them. PyYAML follows YAML 1.1, where `1e-5` is text."""

_MOST_VALUES = 1_000_000
"""The most values of a file in which each alias counts as much as what it stands for."""


class _Reader(yaml.SafeLoader):
    """SafeLoader that also notes each key that is a duplicate in its section, or is not text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[str] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose one section. Keys are checked as written: later, merges (`<<`) may rightly repeat one."""
        node = super().compose_mapping_node(anchor)
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                self.problems.append(f"line {line}: the key {_shown(key)} is not text: write it in quotes")
            elif key.value in seen:
                self.problems.append(f"line {line}: {_shown(key)} appears twice, first in line {seen[key.value]}")
            else:
                seen[key.value] = line
        return node


class _Writer(yaml.SafeDumper):
    """SafeDumper whose text is quoted wherever `_Reader` would take it for something else."""

    def ignore_aliases(self, data: object) -> bool:
        """Write equal values out each time, without anchors."""
        return True


def _resolvers(inherited: dict[str, list[tuple[str, re.Pattern[str]]]]) -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return PyYAML's table (first character -> tags) with our numbers, and with dates left as text."""
    dropped = {_FLOAT_TAG, "tag:yaml.org,2002:timestamp"}
    table = {first: [rule for rule in rules if rule[0] not in dropped] for first, rules in inherited.items()}
    for first in "-+.0123456789":
        table[first] = [(_FLOAT_TAG, _FLOAT), *table.get(first, [])]
    return table


_Reader.yaml_implicit_resolvers = _resolvers(yaml.SafeLoader.yaml_implicit_resolvers)
_Writer.yaml_implicit_resolvers = _resolvers(yaml.SafeDumper.yaml_implicit_resolvers)


def parse_yaml(text: str) -> object:
    """Return the value of a YAML text: null, a truth value, a number, text, or lists and mappings of these.

    Raises:
        ValueError: the text is not YAML, holds a tag that would build an object, or a key twice; one line a problem.
    """
    try:
        reader = _Reader(text)
        node = reader.get_single_node()
        if reader.problems:
            raise ValueError("\n".join(reader.problems))
        if node is not None and _num_values(node, {}) > _MOST_VALUES:
            raise ValueError(
                f"its aliases (*name) stand for more than {_MOST_VALUES:,} values: write out what is meant"
            )
        value = None if node is None else reader.construct_document(node)
        # The round trip separates values that YAML aliases share, so that an override changes one of them.
        return json.loads(json.dumps(value))
    except yaml.constructor.ConstructorError as error:
        raise ValueError(_where(error) + _tag_problem(error)) from error
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{_where(error)}not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from error
    except TypeError as error:
        raise ValueError("only text, numbers, true, false, null, lists and mappings are allowed") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def format_yaml(value: object) -> str:
    """Return a YAML text in ASCII that `parse_yaml` reads as `value`, in the order of the keys."""
    text: str = yaml.dump(value, Dumper=_Writer, sort_keys=False, width=120)
    return text


def read_mapping(path: Path) -> dict[str, object]:
    """Read a YAML file that holds keys and values; an empty file holds none.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds something else.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"config error: {path}: not UTF-8 (byte {error.start}): save the file as UTF-8") from error
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(f"config error: {path}: cannot be read: {reason}") from error
    except ValueError as error:
        raise ConfigError("\n".join(f"config error: {path}: {line}" for line in str(error).splitlines())) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"config error: {path}: must hold keys and values, found a {type(value).__name__}")
    return value


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node holds once its aliases are written out; `known` holds those of nodes seen."""
    if id(node) not in known:
        known[id(node)] = 0  # a node within itself, which is refused later
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = [part for part in parts if isinstance(part, yaml.Node)] or [each for pair in parts for each in pair]
        known[id(node)] = 1 + sum(_num_values(part, known) for part in flat)
    return known[id(node)]


def _shown(key: yaml.Node) -> str:
    return json.dumps(key.value) if isinstance(key, yaml.ScalarNode) else "(a list or a section)"


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return f"line {mark.line + 1}: " if mark else ""


def _tag_problem(error: yaml.constructor.ConstructorError) -> str:
    tag = re.search(r"tag '([^']*)'", error.problem or "")
    if not tag:
        return f"not YAML: {error.problem}"
    name = tag[1].replace("tag:yaml.org,2002:", "!!")
    return f"{name} is not allowed: a configuration holds plain values, it never builds objects"
