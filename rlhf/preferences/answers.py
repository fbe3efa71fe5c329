"""Rows of a file as answers that judges read: a prompt, the text of the answer, and its tokens."""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf.config.evaluate import NO_LIMIT
from rlhf.data import cells
from rlhf.data.bad_rows import BadRow
from rlhf.data.encoder import Encoder
from rlhf.data.records import Message, Prompt, Row
from rlhf.data.tokenization import prompt_maker
from rlhf.evaluation.respond import Response


@dataclass(frozen=True, slots=True)
class Written:
    """An answer and what it answers."""

    prompt: Prompt
    response: Response

    @property
    def key(self) -> str:
        """Equal for answers that every judge must find equal."""
        prompt = self.prompt
        return json.dumps([prompt.raw, prompt.columns, self.response.text, self.response.ended], default=str)


class AnswerReader:
    """Reads answers with the tokenizer of the model that wrote them."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        """Take the tokenizer; without one, answers have no tokens, for judges that read text alone."""
        self._encoder = None if tokenizer is None else Encoder(tokenizer, append_eos=True)
        self._make_prompt = None if tokenizer is None else prompt_maker(tokenizer, max_length=NO_LIMIT)

    def prompt(self, row: Row, used: Collection[str]) -> Prompt:
        """Return the prompt of a row, with every column that is not `used` for rewards to read.

        Raises:
            DataError: it is empty, or neither text nor messages.
        """
        others = {name: cell for name, cell in row.values.items() if name not in used}
        known = Row(others, row.location, is_mapped=True)
        if self._make_prompt is None:
            raw = cells.text_or_messages(known, "prompt")
            prompt = Prompt("", (), raw, {name: cell for name, cell in others.items() if name != "prompt"})
            made = None if cells.is_empty(raw) else prompt
        else:
            made = self._make_prompt(known).item
        if made is None:
            raise BadRow(row.location, "empty prompt - take the row out")
        return made

    def answer(self, row: Row, column: str, prompt: Prompt, ended: object = True) -> Written:
        """Return one answer of a row.

        Args:
            row: holds it.
            column: where it is: text, or a list with one message of the assistant.
            prompt: of the row.
            ended: false for an answer that was cut at its longest length, which has no EOS.

        Raises:
            DataError: the cell holds something else.
        """
        if not isinstance(ended, bool):
            raise BadRow(row.location, f"ended must be true or false for each answer, found {ended!r}")
        text = _text_of(row, column)
        ids: list[int] = []
        if self._encoder is not None:
            ids = self._encoder.response(text) if ended else self._encoder.bare(text)
        return Written(prompt, Response(text, tuple(ids), ended))


def as_cell(prompt: Prompt, text: str) -> str | list[Message]:
    """Return an answer as preferences hold it: text after text, a message of the assistant after messages."""
    return text if isinstance(prompt.raw, str) else [{"role": "assistant", "content": text}]


def without(row: Row, names: Collection[str]) -> dict[str, Any]:
    """Return the cells of a row, those that are named left out."""
    return {name: cell for name, cell in row.values.items() if name not in names}


def renamed(row: Row, names: dict[str, str]) -> Row:
    """Return a row with some columns under other names, old name -> new."""
    return replace(row, values={names.get(name, name): cell for name, cell in row.values.items()})


def _text_of(row: Row, column: str) -> str:
    cell = cells.text_or_messages(row, column)
    if isinstance(cell, str):
        return cell
    (*_, last) = cell
    if len(cell) > 1 or last["role"] != "assistant" or "tool_calls" in last:
        raise BadRow(
            row.location,
            f"{column} must be text or one message of the assistant without tool calls, found {len(cell)} messages of "
            f"{', '.join(str(message['role']) for message in cell)} - judges read one answer",
        )
    return str(last["content"])
