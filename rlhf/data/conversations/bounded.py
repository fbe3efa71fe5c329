"""A bound on what a chat template may do for one conversation: templates come from strangers, and may loop for hours.

The code into which Jinja translates a template counts its own steps: every turn of a loop, every call of a macro, and
every character written. So it ends at the same step on every machine and in every thread, and a template that is within
the bounds gives the same text.
"""

import ast
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from jinja2 import Environment, nodes
from transformers.utils import chat_template_utils

from rlhf.errors import ConfigError

MAX_STEPS = 200_000
"""Turns of loops and calls of macros for one conversation; a template takes a few for each message."""
MAX_CHARS = 100_000_000
"""Characters that it may write for one conversation."""
_COUNT = "_rlhf_count_step"
_MEASURE = "_rlhf_measure"
_FILE = "<template>"


class _Left(threading.local):
    """What the rendering in this thread has left; without a bound in whatever is not rendered by us."""

    steps: float = math.inf
    chars: float = math.inf


class _TooMuch(Exception):
    """A template went beyond a bound; says which."""


_left = _Left()


@contextmanager
def bounded(template: str, name: str) -> Iterator[None]:
    """Bound what `template` does in this block, in which transformers renders it once.

    Args:
        template: its text.
        name: whose template it is, for messages.

    Raises:
        ConfigError: it loops for too long.
        jinja2.TemplateSyntaxError: it cannot be read.
    """
    _make_counting(template, name)
    _left.steps, _left.chars = MAX_STEPS, MAX_CHARS
    try:
        yield
    except _TooMuch as error:
        raise _refusal(name, f"more than {error} for one conversation") from None
    finally:
        _left.steps = _left.chars = math.inf


def _refusal(name: str, what: str) -> ConfigError:
    fix = "mend chat_template.jinja, or give another (model.chat_template)"
    return ConfigError(f"{name}: its chat template is broken ({what}) - {fix}")


def _count_step() -> None:
    _left.steps -= 1
    if _left.steps < 0:
        raise _TooMuch(f"{MAX_STEPS:,} turns of its loops")


def _measure(text: Any) -> Any:
    if isinstance(text, str):
        _left.chars -= len(text)
        if _left.chars < 0:
            raise _TooMuch(f"{MAX_CHARS:,} characters")
    return text


def _make_counting(template: str, name: str) -> None:
    """Make the compiled template, which transformers keeps and renders, count its steps."""
    reader: Environment = chat_template_utils._compile_jinja_template("").environment
    kept = _compiled(template, reader, name)
    if hasattr(kept, _COUNT):
        return
    namespace: dict[str, Any] = {
        "environment": kept.environment,
        "__file__": _FILE,
        _COUNT: _count_step,
        _MEASURE: _measure,
    }
    exec(_counting_code(kept.environment.compile(template, raw=True)), namespace)  # noqa: S102 - Jinja's own code
    kept.root_render_func, kept.blocks = namespace["root"], namespace["blocks"]
    setattr(kept, _COUNT, True)


def _compiled(template: str, reader: Environment, name: str) -> Any:
    """Return what transformers compiles; Jinja computes constants then, so powers, which know no bound, are refused."""
    if "**" in template and reader.parse(template).find(nodes.Pow) is not None:
        raise _refusal(name, "it raises numbers to powers, which may take for ever")
    return chat_template_utils._compile_jinja_template(template)


def _counting_code(source: str) -> CodeType:
    """Return Jinja's Python code with a call in each loop's turn, in each function, and around each text it yields."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.While | ast.FunctionDef):
            node.body.insert(0, ast.copy_location(ast.Expr(_call(_COUNT)), node.body[0]))
        elif isinstance(node, ast.Yield) and node.value is not None:
            node.value = ast.copy_location(_call(_MEASURE, node.value), node.value)
    return compile(ast.fix_missing_locations(tree), _FILE, "exec")


def _call(function: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(function, ast.Load()), [*arguments], [])
