"""Jinja's sandbox for templates of strangers, in which no operation makes a value for which the budget has no room."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import escape

from rlhf.data.conversations.budget import charge, check_room
from rlhf.data.conversations.extent import length, written
from rlhf.data.conversations.growth import FILTERS, FUNCTIONS, METHODS, of_operator

_SCOPES = ("_loop_vars", "_block_vars")
"""Arguments of Jinja's own beside those of a function."""


class Filters(dict[str, Callable[..., Any]]):
    """Filters by name, each of which asks for room."""

    def __setitem__(self, name: str, function: Callable[..., Any]) -> None:
        super().__setitem__(name, _guarded(name, function))


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox of transformers, with a bound; what Jinja computes as it compiles a template keeps to it as well."""

    intercepted_binops = frozenset({"+", "*", "%"})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plain, self.filters = self.filters, Filters()
        for name, function in plain.items():
            self.filters[name] = function
        del self.globals["lipsum"]  # text of any length, for nobody

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join what was written."""
        held = list(parts)
        charge(sum(map(len, held)))
        return "".join(held)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute `left operator right`."""
        charge(of_operator(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function or method."""
        method = getattr(__obj, "__wrapped__", __obj)  # format is wrapped by Jinja
        name, owner = getattr(method, "__name__", None), getattr(method, "__self__", None)
        if name in FUNCTIONS and owner is None:
            check_room(FUNCTIONS[name](args))
        elif name in METHODS and isinstance(owner, str | bytes | int):
            args = _held(args)
            own = {key: value for key, value in kwargs.items() if key not in _SCOPES}
            check_room(METHODS[name](*_arguments(getattr(type(owner), name), (owner, *args), own)))
        return _charged(super().call(__context, __obj, *args, **kwargs))


def text_of(value: Any) -> str:
    """Return `str(value)`, as a template writes it."""
    if not isinstance(value, str):
        charge(written(value))
    return str(value)


def escaped(value: Any) -> Any:
    """Return a value as a template with autoescape writes it."""
    charge(written(value))
    return escape(value)


def joined(parts: Iterable[Any]) -> str:
    """Return what `~` makes of its operands."""
    return str_join(_roomy(parts))


def joined_markup(parts: Iterable[Any]) -> str:
    """Return what `~` makes of its operands where texts are escaped."""
    return markup_join(_roomy(parts))


def taken(value: Any) -> Any:
    """Return what was taken out of a value by an index or a slice."""
    return _charged(value)


def _roomy(parts: Iterable[Any]) -> list[Any]:
    held = list(parts)
    charge(sum(map(written, held)))
    return held


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    num_own = hasattr(function, "jinja_pass_arg")  # the environment or the context comes first

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if name in FILTERS:
            args = _held(args)
            check_room(FILTERS[name](*_arguments(function, args, kwargs)[num_own:]))
        return _charged(function(*args, **kwargs))

    return guarded


def _charged(value: Any) -> Any:
    charge(length(value))
    return value


def _held(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return arguments that may be looked at and then used."""
    return tuple(list(arg) if isinstance(arg, Iterator) else arg for arg in args)


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except ValueError:  # a function in C that takes anything
        return None


def _arguments(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return all arguments in the order of the parameters, those of `*` and `**` behind.

    Raises:
        TypeError: they are not those of the function.
    """
    signature = _signature(function)
    if signature is None:
        return [*args, *kwargs.values()]
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return [*bound.args, *bound.kwargs.values()]
