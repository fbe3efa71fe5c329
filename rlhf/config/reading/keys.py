"""Every key that a schema knows: its dotted path, type, range, default and meaning."""

import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

INDEX = "N"
"""Stands for the index of a list's item in a path: `rewards.N.weight`."""

_NAMES: dict[object, str] = {
    int: "integer",
    float: "number",
    bool: "true or false",
    str: "text",
    Path: "path",
    type(None): "null",
    Any: "anything",
}
_BOUNDS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of a configuration."""

    path: str
    """Dotted path; `N` stands for the index of a list's item."""
    type_name: str
    """What it holds, in words, with the range."""
    required: bool
    """True when it has no default."""
    default: object
    """The default; meaningless when the key is required or a section."""
    description: str
    """A sentence, with the unit."""
    is_section: bool
    """True when it holds keys of its own."""


def keys_of(model: type[BaseModel]) -> list[Key]:
    """Return the keys of a schema in the order of its fields, each section before its own keys."""
    return list(_walk(model, "", None))


def unwrap(annotation: object) -> Iterator[object]:
    """Yield the types that an annotation allows, without `Annotated`, `Union` and `Optional` around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from unwrap(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for option in get_args(annotation):
            yield from unwrap(option)
    else:
        yield annotation


def section_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys at the top that hold one section, so that text there is the path of a file with it.

    A section with a short form, such as `decoding: model`, is none of them: text there is that form.
    """
    return [
        name
        for name, field in model.model_fields.items()
        if any(map(_is_model, unwrap(field.annotation))) and not _has_short_form(field)
    ]


def _walk(model: type[BaseModel], prefix: str, instance: object) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        default = getattr(instance, name) if isinstance(instance, model) else _default(field)
        options = list(unwrap(field.annotation))
        yield Key(
            path=path,
            type_name=_type_name(field.annotation, field.metadata),
            required=field.is_required() and default is PydanticUndefined,
            default=default,
            description=" ".join((field.description or "").split()),
            is_section=any(map(_is_model, options)),
        )
        yield from _walk_options(options, f"{path}.", default)
        for option in options:
            if get_origin(option) in (list, tuple, Sequence):
                items = [each for item in get_args(option) for each in unwrap(item)]
                yield from _walk_options(items, f"{path}.{INDEX}.", None)


def _walk_options(options: Sequence[object], prefix: str, instance: object) -> Iterator[Key]:
    """Yield the keys of every kind of section that one place allows, each key once."""
    keys: dict[str, Key] = {}
    for option in options:
        if isinstance(option, type) and issubclass(option, BaseModel):
            for key in _walk(option, prefix, instance):
                keys[key.path] = _either(keys[key.path], key) if key.path in keys else key
    yield from keys.values()


def _either(one: Key, other: Key) -> Key:
    """Return a key that two kinds of section share, with the types and meanings of both."""
    type_names = dict.fromkeys((one.type_name, other.type_name))
    meanings = dict.fromkeys(text for text in (one.description, other.description) if text)
    return replace(
        one,
        type_name=(" | " if "'" in other.type_name else " or ").join(type_names),
        required=one.required and other.required,
        description="; or ".join(meanings),
    )


def _default(field: FieldInfo) -> object:
    if field.default_factory_takes_validated_data:
        return None
    return field.get_default(call_default_factory=True)


def _has_short_form(field: FieldInfo) -> bool:
    """Tell whether a function makes the section out of something shorter, as `Decoding` does."""
    return any(isinstance(each, BeforeValidator) for each in field.metadata)


def _is_model(option: object) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


def _type_name(annotation: object, metadata: Sequence[object] = ()) -> str:
    """Return a type in words: `number > 0`, `'k1' | 'k2'`, `list of text`, `section or null`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0], (*_constraints(arguments[1:]), *metadata))
    if origin in (Union, types.UnionType):
        names = dict.fromkeys(_type_name(option, metadata if option is not type(None) else ()) for option in arguments)
        return " or ".join(names)
    return _plain_name(annotation, origin, arguments) + _range(metadata) + _least_length(annotation, metadata)


def _plain_name(annotation: object, origin: object, arguments: tuple[object, ...]) -> str:
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin is dict:
        return f"mapping of {_type_name(arguments[0])} to {_type_name(arguments[1])}"
    if origin is tuple and Ellipsis not in arguments:
        return "[" + ", ".join(map(_type_name, arguments)) + "]"
    if origin is not None and arguments:
        return f"list of {_type_name(arguments[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(repr(member.value) for member in annotation)
    if _is_model(annotation):
        return "section"
    return _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _constraints(metadata: Sequence[object]) -> list[object]:
    """Return the constraints in an annotation's metadata, those inside a `Field(...)` included."""
    flat: list[object] = []
    for item in metadata:
        flat.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return flat


def _range(metadata: Sequence[object]) -> str:
    bounds: list[str] = []
    for item in metadata:
        bounds += [f" {sign} {getattr(item, name)}" for name, sign in _BOUNDS.items() if hasattr(item, name)]
    return " and".join(bounds)


def _least_length(annotation: object, metadata: Sequence[object]) -> str:
    least = max((getattr(item, "min_length", None) or 0 for item in metadata), default=0)
    if not least:
        return ""
    if least == 1:
        return ", not empty"
    return f" of at least {least} {'characters' if annotation is str else 'entries'}"
