"""A bound on what a chat template may do for one conversation: templates come from strangers, and may loop for hours.

The code into which Jinja translates a template counts its own steps: every turn of a loop, every call of a macro, every
character written and every value made. So it ends at the same step on every machine and in every thread, and a template
that is within the bounds gives the same text.
"""

import ast
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from jinja2 import nodes
from transformers.utils import chat_template_utils

from rlhf.data.conversations import sandbox
from rlhf.data.conversations.budget import TooMuch, budget, count_step, measure
from rlhf.errors import ConfigError

_COUNT, _MEASURE, _TAKE = "_rlhf_count_step", "_rlhf_measure", "_rlhf_take"
_INSTEAD = {
    "str": sandbox.text_of,
    "escape": sandbox.escaped,
    "str_join": sandbox.joined,
    "markup_join": sandbox.joined_markup,
}
"""What the code calls instead of Python's or Jinja's function of that name."""
_FUNCTIONS: dict[str, Any] = {_COUNT: count_step, _MEASURE: measure, _TAKE: sandbox.taken}
_FUNCTIONS |= {f"_rlhf_{name}": function for name, function in _INSTEAD.items()}
_FILE = "<template>"
_SANDBOX = "ImmutableSandboxedEnvironment"
"""The class that transformers compiles templates for, as its module names it."""
_compiling = threading.Lock()


@contextmanager
def bounded(template: str, name: str) -> Iterator[None]:
    """Bound what `template` does in this block, in which transformers renders it once.

    Args:
        template: its text.
        name: whose template it is, for messages.

    Raises:
        ConfigError: it loops for too long, or makes too much text.
        jinja2.TemplateSyntaxError: it cannot be read.
    """
    try:
        with budget(), _compiling:
            _make_counting(template, name)
        with budget():
            yield
    except TooMuch as error:
        raise _refusal(name, f"more than {error} for one conversation") from None


def _refusal(name: str, what: str) -> ConfigError:
    fix = "mend chat_template.jinja, or give another (model.chat_template)"
    return ConfigError(f"{name}: its chat template is broken ({what}) - {fix}")


def _make_counting(template: str, name: str) -> None:
    """Make the compiled template, which transformers keeps and renders, count its steps."""
    kept = _compiled(template, name)
    if hasattr(kept, _COUNT):
        return
    if not isinstance(kept.environment, sandbox.BoundedEnvironment):  # somebody else was the first to render it
        with _our_sandbox():
            kept.environment = chat_template_utils._cached_compile_jinja_template("").environment
    namespace = {"environment": kept.environment, "__file__": _FILE, **_FUNCTIONS}
    exec(_counting_code(kept.environment.compile(template, raw=True)), namespace)  # noqa: S102 - Jinja's own code
    kept.root_render_func, kept.blocks = namespace["root"], namespace["blocks"]
    kept.globals = kept.environment.make_globals(None)
    setattr(kept, _COUNT, True)


def _compiled(template: str, name: str) -> Any:
    """Return what transformers compiles; Jinja computes constants then, so powers, which know no bound, are refused."""
    with _our_sandbox():
        reader = chat_template_utils._compile_jinja_template("").environment
        if "**" in template and reader.parse(template).find(nodes.Pow) is not None:
            raise _refusal(name, "it raises numbers to powers, which may take for ever")
        return chat_template_utils._compile_jinja_template(template)


@contextmanager
def _our_sandbox() -> Iterator[None]:
    """Let transformers compile for the sandbox that is bounded."""
    theirs = getattr(chat_template_utils, _SANDBOX)
    setattr(chat_template_utils, _SANDBOX, sandbox.BoundedEnvironment)
    try:
        yield
    finally:
        setattr(chat_template_utils, _SANDBOX, theirs)


def _counting_code(source: str) -> CodeType:
    """Return Jinja's Python code with a count in each loop's turn, in each function, and around whatever makes text."""
    tree = _Counting().visit(ast.parse(source))
    return compile(ast.fix_missing_locations(tree), _FILE, "exec")


class _Counting(ast.NodeTransformer):
    """Puts the counts into the code."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.For | ast.While | ast.FunctionDef):
            node.body.insert(0, ast.copy_location(ast.Expr(_call(_COUNT)), node.body[0]))
        elif isinstance(node, ast.Yield) and node.value is not None:
            node.value = _call(_MEASURE, node.value)
        elif isinstance(node, ast.Name) and node.id in _INSTEAD:
            node.id = f"_rlhf_{node.id}"
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            return _call(_TAKE, node)
        return node


def _call(function: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(function, ast.Load()), [*arguments], [])
