"""A chat template of one's own, and values for its variables; both stay with the tokenizer when it is saved.

A value becomes the default of its variable at the head of the template. So every stage, every later run and every
server that reads the saved template renders the same, and whoever passes another value still gets it.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf.errors import ConfigError

_GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt"})
"""What every call of a template sets."""


def use_chat_template(
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> PreTrainedTokenizerBase:
    """Give a tokenizer, in place, the chat template of a file, and defaults for variables of its template.

    Args:
        tokenizer: is returned.
        chat_template: path of a Jinja file; None keeps the tokenizer's own template.
        chat_template_kwargs: values by variable, such as {"enable_thinking": False}.

    Raises:
        ConfigError: the file cannot be read, or the template does not read a variable.
    """
    if chat_template is not None:
        tokenizer.chat_template = _read(chat_template)
    for name, value in (chat_template_kwargs or {}).items():
        _set_default(tokenizer, name, value)
    return tokenizer


def _set_default(tokenizer: PreTrainedTokenizerBase, name: str, value: Any) -> None:
    template: Any = tokenizer.chat_template
    if template is None:
        raise ConfigError(
            "chat_template_kwargs: the tokenizer has no chat template - give one with chat_template: FILE.jinja"
        )
    _check_name(name, template, tokenizer)
    # The line end is Jinja's: it belongs to the block before it.
    head = f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}\n"
    if isinstance(template, dict):
        tokenizer.chat_template = {key: head + text for key, text in template.items()}
    else:
        tokenizer.chat_template = head + template


def _check_name(name: str, template: object, tokenizer: PreTrainedTokenizerBase) -> None:
    words = set(re.findall(r"[A-Za-z_]\w*", str(template)))
    if name in _GIVEN or name in tokenizer.special_tokens_map:
        raise ConfigError(f"chat_template_kwargs: {name} is set by each conversation or the tokenizer - leave it out")
    if name not in words:
        close = difflib.get_close_matches(name, words, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else "leave it out, or give a template that reads it"
        raise ConfigError(f"chat_template_kwargs: the chat template does not read {name!r} - {hint}")


def _literal(value: Any) -> str:
    """Return a value of YAML or JSON as Jinja writes it: its literals are those of Python."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
    elif isinstance(value, list | tuple):
        text = f"[{', '.join(map(_literal, value))}]"
    elif isinstance(value, dict):
        text = f"{{{', '.join(f'{_literal(key)}: {_literal(item)}' for key, item in value.items())}}}"
    else:
        raise ConfigError(
            f"chat_template_kwargs: expected text, numbers, truth values, lists and mappings, found "
            f"{type(value).__name__} - write it as text"
        )
    return text


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"chat_template: {path} cannot be read: {reason} - give the path of a Jinja file") from None
