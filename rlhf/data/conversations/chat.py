"""A conversation as the chat template of a tokenizer writes it, and which characters its generation tags mark."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jinja2
from jinja2.exceptions import SecurityError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from rlhf.data.bad_rows import BadRow
from rlhf.data.conversations.bounded import bounded
from rlhf.data.records import Message, Tools
from rlhf.errors import ConfigError

T = TypeVar("T")
Span = tuple[int, int]
"""First character and the one after the last."""
_BROKEN = (jinja2.TemplateSyntaxError, SecurityError, OverflowError, RecursionError, MemoryError, ZeroDivisionError)
"""What a template raises whatever the row holds: it cannot be read, wants too much, or reaches for what it may not."""
_TAGS = re.compile(r"\{%-?\s*generation\b")


class Chat:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Take the tokenizer; the template is looked up when it is needed."""
        self._tokenizer = tokenizer

    def render(
        self, messages: Sequence[Message], location: str, *, tools: Tools = None, add_generation_prompt: bool
    ) -> str:
        """Return what the template makes of a conversation.

        Raises:
            ConfigError: the tokenizer has no chat template, or a broken one.
            BadRow: the template refuses the conversation.
        """
        return self._applied(messages, location, tools, add_generation_prompt=add_generation_prompt)

    def before_answer(self, messages: Sequence[Message], location: str, tools: Tools = None) -> str:
        """Return what a model reads before it answers: up to the generation prompt, or in the middle of an answer.

        A conversation that ends with an assistant's message is left open there, for the model to go on.
        """
        if not messages or messages[-1]["role"] != "assistant":
            return self._applied(messages, location, tools, add_generation_prompt=True)
        if "tool_calls" in messages[-1]:
            raise BadRow(location, "a prompt ends with a call of a tool - add the tool's answer, or leave out the call")
        return self._applied(messages, location, tools, continue_final_message=True)

    def marked(self, messages: Sequence[Message], location: str, tools: Tools = None) -> list[Span] | None:
        """Return what the template's generation tags enclose, None where it has no such tags."""
        template = self._template(location, tools)
        check_tools(messages, tools, template, location)
        if not _TAGS.search(template):
            return None

        def spans() -> list[Span]:
            special: dict[str, Any] = dict(self._tokenizer.special_tokens_map)
            rendered: Any = render_jinja_template(
                conversations=[list(messages)],
                tools=tools,
                chat_template=template,
                return_assistant_tokens_mask=True,
                **special,
            )
            return [(int(start), int(end)) for start, end in rendered[1][0] if start < end]

        return self._guarded(spans, template, location)

    def _applied(self, messages: Sequence[Message], location: str, tools: Tools, **options: Any) -> str:
        template = self._template(location, tools)
        check_tools(messages, tools, template, location)

        def text() -> str:
            return str(self._tokenizer.apply_chat_template(list(messages), tools=tools, tokenize=False, **options))

        try:
            return _with_tool_answers(self._guarded(text, template, location), messages, location)
        except BadRow as refusal:
            others = [message for message in messages if message["role"] != "system"]
            if others and len(others) < len(messages) and self._takes(others, location, tools, **options):
                raise BadRow(location, f"{refusal.reason} - set system: merge_into_user or drop") from None
            raise

    def _takes(self, messages: Sequence[Message], location: str, tools: Tools, **options: Any) -> bool:
        try:
            self._applied(messages, location, tools, **options)
        except BadRow:
            return False
        return True

    def _guarded(self, call: Callable[[], T], template: str, location: str) -> T:
        name = str(self._tokenizer.name_or_path or "the tokenizer")
        try:
            with bounded(template, name):
                return call()
        except _BROKEN as error:
            line = [*str(error).strip().splitlines(), type(error).__name__][0][:200]
            raise ConfigError(
                f"{name}: its chat template is broken ({line}) - mend chat_template.jinja, or give another "
                "(model.chat_template)"
            ) from None
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise BadRow(location, f"the chat template refuses this conversation: {error}") from None

    def _template(self, location: str, tools: Tools) -> str:
        name = str(self._tokenizer.name_or_path or "the tokenizer")
        if self._tokenizer.chat_template is None:
            raise ConfigError(
                f"{name}: the rows hold messages, but the tokenizer has no chat template - add chat_template.jinja"
            )
        try:
            return self._tokenizer.get_chat_template(None, tools)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None


def check_tools(messages: Sequence[Message], tools: Tools, template: str, location: str) -> None:
    """Refuse tools and calls that a template would leave out without a word.

    Raises:
        BadRow: the template reads no tools, or no calls of tools.
    """
    fix = "give a template that does (model.chat_template)"
    if tools and not re.search(r"\btools\b", template):
        rename = "or rename the column (column_map: {unread: tools})"
        raise BadRow(location, f"the row has tools, and the chat template does not read tools - {fix}, {rename}")
    if any("tool_calls" in message for message in messages) and "tool_calls" not in template:
        raise BadRow(location, f"an assistant calls a tool, and the chat template does not read tool_calls - {fix}")


def _with_tool_answers(text: str, messages: Sequence[Message], location: str) -> str:
    for message in messages:
        content = str(message.get("content", "")).strip()
        if message["role"] == "tool" and content not in text and json.dumps(content)[1:-1] not in text:
            raise BadRow(
                location,
                "a message of role tool, and the chat template leaves it out - give a template that reads it "
                "(model.chat_template)",
            )
    return text
