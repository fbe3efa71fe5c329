"""Loads a checked configuration from a YAML file and a command line, and saves it back to a file."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from rlhf.config.reading.keys import section_keys
from rlhf.config.reading.overrides import Override, apply_overrides, inline_references, parse_overrides
from rlhf.config.reading.problems import Problem, explain
from rlhf.config.reading.secrets import redacted
from rlhf.config.reading.yaml_text import format_yaml, read_mapping
from rlhf.disk import write_atomic
from rlhf.errors import CheckpointError, ConfigError

M = TypeVar("M", bound=BaseModel)


def load_config(model: type[M], path: Path | None, overrides: Sequence[str] = ()) -> M:
    """Read a YAML file, apply the overrides, and check everything against the schema.

    A section at the top may be the path of a YAML file, relative to the file that names it (in an override, relative
    to the working directory).

    Args:
        model: the schema.
        path: the YAML file; None takes everything from the overrides.
        overrides: `a.b=c`, where c is YAML; list items by index.

    Raises:
        ConfigError: everything that is wrong, one line each.
    """
    mapping = load_mapping(path, overrides, sections=section_keys(model))
    source = "command line" if path is None else str(path)
    return validate(model, mapping, source, overridden=[".".join(o.path) for o in parse_overrides(overrides)])


def load_mapping(
    path: Path | None, overrides: Sequence[str] = (), *, sections: Sequence[str] = ()
) -> dict[str, object]:
    """Read a YAML file and apply the overrides, without a schema.

    Args:
        path: the YAML file; None starts with nothing.
        overrides: `a.b=c`, where c is YAML.
        sections: keys at the top whose value may be the path of a YAML file.

    Raises:
        ConfigError: the file or an override cannot be read.
    """
    parsed = [_with_file(override, sections) for override in parse_overrides(overrides)]
    given = {} if path is None else inline_references(read_mapping(path), sections, path.parent)
    return apply_overrides(given, parsed)


def validate(model: type[M], mapping: Mapping[str, object], source: str, *, overridden: Collection[str] = ()) -> M:
    """Check a mapping against the schema: strictly, so that `"4"` or `true` is not a number.

    If some values of a schema follow from other keys, it has a class method `completed(mapping) -> mapping`, which is
    called first. (A pydantic validator before the fields would make strict mode refuse JSON's lists
    as tuples.)

    Args:
        model: the schema.
        mapping: keys and values as YAML or JSON holds them.
        source: the file's name, for messages.
        overridden: dotted paths that came from the command line, for messages.

    Raises:
        ConfigError: everything that is wrong, one line each: `config error: SOURCE: KEY: PROBLEM [got VALUE]`.
    """
    complete: Callable[[Mapping[str, object]], Mapping[str, object]] = getattr(model, "completed", dict)
    mapping = complete(mapping)
    try:
        return _parse(model, mapping)
    except ValidationError as error:
        problems = explain(error.errors(include_url=False), mapping, model)
    problems += _hidden_problems(model, mapping, problems)
    lines = [f"config error: {_source(problem, source, overridden)}: {_line(problem)}" for problem in problems]
    raise ConfigError("\n".join(lines))


def refuse(model: type[BaseModel], given: Mapping[str, object], error: ValidationError) -> NoReturn:
    """Refuse what a schema did not take from Python as if it were the content of a file.

    Raises:
        ConfigError: everything that is wrong, one line each; the schema's name stands for the file.
    """
    source = model.__name__
    validate(model, {key: _as_in_a_file(value) for key, value in given.items()}, source)
    first = error.errors(include_url=False)[0]  # Python's values are refused, but not those that a file can hold
    raise ConfigError(f"config error: {source}: {'.'.join(map(str, first['loc']))}: {first['msg']}")


def save_config(config: BaseModel, path: Path) -> None:
    """Write a configuration with every default as YAML that loads back equal; secrets are redacted.

    Raises:
        CheckpointError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, config_yaml(config))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror}") from error


def config_yaml(config: BaseModel) -> str:
    """Return a configuration with every default as YAML; secrets are redacted."""
    return format_yaml(_plain(config))


def config_fingerprint(config: BaseModel) -> str:
    """Return the sha256 of the canonical JSON of a configuration: equal configurations, equal fingerprints.

    Secrets are left out: a new access token does not make it another run.
    """
    text = json.dumps(_plain(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(config: BaseModel) -> object:
    return redacted(config.model_dump(mode="json", round_trip=True))


def _as_in_a_file(value: object) -> object:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _as_in_a_file(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_as_in_a_file(item) for item in value]
    return value if value is None or isinstance(value, str | bool | int | float) else repr(value)


def _parse(model: type[M], mapping: Mapping[str, object]) -> M:
    # As JSON: only from JSON does pydantic's strict mode accept lists and text as tuples, paths and enums.
    return model.model_validate_json(json.dumps(mapping), strict=True)


def _with_file(override: Override, sections: Sequence[str]) -> Override:
    """Return the override with the file's content when it sets a whole section to the path of a file."""
    is_section = len(override.path) == 1 and override.path[0] in sections
    if is_section and isinstance(override.value, str):
        return Override(override.path, read_mapping(Path(override.value)))
    return override


def _hidden_problems(model: type[BaseModel], mapping: Mapping[str, object], known: Sequence[Problem]) -> list[Problem]:
    """Find broken rules between keys as well: pydantic checks those only if every single key is valid.

    A valid value, or the default, replaces each invalid one; further errors about those keys are ignored. A missing
    required key cannot be replaced, so the rules of its section are not checked.
    """
    partial: object = mapping
    for problem in known:
        if problem.path:
            partial = _with_stand_in(partial, problem.path, problem.stand_in)
    assert isinstance(partial, dict)
    try:
        _parse(model, partial)
    except ValidationError as error:
        paths = {problem.path for problem in known}
        names = {str(path[-1]) for path in paths if path}
        found = explain(error.errors(include_url=False), partial, model)
        return [p for p in found if p.path not in paths and not names & set(re.findall(r"\w+", p.text))]
    return []


def _with_stand_in(container: object, path: Sequence[str | int], value: object) -> object:
    """Return a copy of `container` with `value` at `path`, or without that key when `value` is None."""
    first, rest = path[0], path[1:]
    if isinstance(container, list):
        keeps = value is None and not rest  # leaving an item out would shift the others
        return [
            item if place != first or keeps else _with_stand_in(item, rest, value) if rest else value
            for place, item in enumerate(container)
        ]
    if not isinstance(container, dict) or first not in container:
        return container
    if not rest and value is None:
        return {key: item for key, item in container.items() if key != first}
    return {**container, first: _with_stand_in(container[first], rest, value) if rest else value}


def _source(problem: Problem, source: str, overridden: Collection[str]) -> str:
    came_from_command_line = any(f"{problem.dotted}.".startswith(f"{path}.") for path in overridden)
    return "command line" if came_from_command_line else source


def _line(problem: Problem) -> str:
    return f"{problem.dotted}: {problem.text}" if problem.path else problem.text
