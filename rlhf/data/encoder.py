"""Text and conversations to token ids: one BOS if the tokenizer adds it, one EOS, the chat template once."""

from collections.abc import Sequence
from typing import Any

import jinja2
from transformers import PreTrainedTokenizerBase

from rlhf.data.records import Message
from rlhf.errors import ConfigError, DataError

Piece = tuple[str, bool]
"""Text, and whether an assistant said it."""


class Encoder:
    """A tokenizer with our conventions for prompts, responses and conversations."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, append_eos: bool) -> None:
        """Find out whether the tokenizer adds a BOS by itself.

        Args:
            tokenizer: of the model that will read the ids.
            append_eos: end each response with one EOS, even if the text already ends with it.

        Raises:
            ConfigError: `append_eos` is set, but the tokenizer has no EOS.
        """
        self._tokenizer = tokenizer
        self._append_eos = append_eos
        self._eos_id = tokenizer.eos_token_id
        if append_eos and self._eos_id is None:
            raise ConfigError(f"{self._name}: the tokenizer has no EOS token - set eos_token in tokenizer_config.json")
        bos_id = tokenizer.bos_token_id
        adds_bos = bos_id is not None and list(tokenizer("a")["input_ids"])[:1] == [bos_id]
        self._bos_ids = [bos_id] if adds_bos else []

    @property
    def bos_ids(self) -> list[int]:
        """What the tokenizer puts before plain text by default: the BOS, or nothing."""
        return self._bos_ids

    def bare(self, text: str) -> list[int]:
        """Return the ids of `text`, without special tokens that the text does not spell out."""
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def prompt(self, text: str) -> list[int]:
        """Return the ids of plain text that starts a sequence: with one BOS, if the tokenizer adds it by default."""
        ids = self.bare(text)
        starts_with_bos = ids[:1] == self._bos_ids
        return ids if starts_with_bos else self._bos_ids + ids

    def response(self, text: str) -> list[int]:
        """Return the ids of plain text that ends a sequence."""
        return self.with_eos(self.bare(text))

    def with_eos(self, ids: list[int]) -> list[int]:
        """End `ids` with one EOS; drop white space that a chat template writes after it."""
        if self._eos_id is not None and self._eos_id in ids:
            end = len(ids) - ids[::-1].index(self._eos_id)
            if not str(self._tokenizer.decode(ids[end:])).strip():
                while ids[end - 2 : end - 1] == [self._eos_id]:
                    end -= 1
                return ids[:end]
        return [*ids, self._eos_id] if self._append_eos else ids

    def render(self, messages: Sequence[Message], location: str, *, add_generation_prompt: bool) -> str:
        """Return what the chat template makes of a conversation.

        Raises:
            ConfigError: the tokenizer has no chat template.
            DataError: the template refuses the conversation.
        """
        self._require_template()
        try:
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise DataError(f"{location}: the chat template refuses this conversation: {error}") from None
        return str(text)

    def conversation(self, messages: Sequence[Message], location: str) -> tuple[list[int], list[bool]]:
        """Return the ids of a conversation that ends with an assistant, and which of them an assistant emitted.

        The template's generation tags say what an assistant emits. Without them a turn is the rendered text with it
        minus the text up to its generation prompt. White space after the EOS of a turn is not emitted.
        """
        if messages[-1]["role"] != "assistant" or messages[0]["role"] == "assistant":
            raise DataError(
                f"{location}: a conversation must start with a system or user message and end with an assistant's, "
                f"found roles {[message['role'] for message in messages]}"
            )
        self._require_template()
        if "{% generation" in str(self._tokenizer.chat_template).replace("{%-", "{%"):
            return self._by_generation_tags(messages, location)
        ids: list[int] = []
        emitted: list[bool] = []
        pieces = self._pieces(messages, location)
        for index, (text, is_assistant) in enumerate(pieces):
            found = self.bare(text)
            kept = self._emitted(found) if is_assistant else []
            if index == len(pieces) - 1:
                found = kept = self.with_eos(found)
            ids += found
            emitted += [True] * len(kept) + [False] * (len(found) - len(kept))
        return ids, emitted

    def _pieces(self, messages: Sequence[Message], location: str) -> list[Piece]:
        """Cut the rendered conversation into what an assistant said and what comes between.

        The pieces are tokenized one by one, so that training sees the ids that sampling sees: sampling tokenizes the
        prompt with its generation prompt without knowing what follows.
        """
        whole = self.render(messages, location, add_generation_prompt=False)
        pieces: list[Piece] = []
        done = 0
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self.render(messages[:turn], location, add_generation_prompt=True)
            after = self.render(messages[: turn + 1], location, add_generation_prompt=False)
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= done):
                raise DataError(
                    f"{location}: the chat template changes earlier turns, or its answers do not start with its "
                    "generation prompt, so nothing marks what the assistant said - add {% generation %} tags"
                )
            pieces += [(whole[done : len(before)], False), (after[len(before) :], True)]
            done = len(after)
        return pieces

    def _by_generation_tags(self, messages: Sequence[Message], location: str) -> tuple[list[int], list[bool]]:
        try:
            encoded: Any = self._tokenizer.apply_chat_template(
                list(messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise DataError(f"{location}: the chat template refuses this conversation: {error}") from None
        found = list(encoded["input_ids"])
        ids = self.with_eos(found)
        emitted = [bool(flag) for flag in encoded["assistant_masks"]][: len(ids)]
        return ids, emitted + [True] * (len(ids) - len(emitted))

    def _emitted(self, ids: list[int]) -> list[int]:
        """Return a turn up to its last EOS, or all of it if it has none."""
        if self._eos_id in ids:
            return ids[: len(ids) - ids[::-1].index(self._eos_id)]
        return ids

    def _require_template(self) -> None:
        if self._tokenizer.chat_template is None:
            raise ConfigError(
                f"{self._name}: the rows hold messages, but the tokenizer has no chat template - "
                "add chat_template.jinja"
            )

    @property
    def _name(self) -> str:
        return str(self._tokenizer.name_or_path or "the tokenizer")
