"""One sequence of token ids from the fields of a row: a prompt that may be cut, and a response that may not."""

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.data.encoder import Encoder
from rlhf.data.records import Message, Prompt, Row
from rlhf.errors import DataError


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt that may be cut on the left, and a response that may not."""

    prompt_ids: list[int]
    response_ids: list[int]
    emitted: list[bool]
    """For prompt and response, True on what an assistant emitted."""


def prompt_ids_of(raw: str | list[Message], encoder: Encoder, row: Row) -> tuple[str, list[int]]:
    """Return a prompt as the model reads it, and its ids."""
    if isinstance(raw, str):
        return raw, encoder.prompt(raw)
    if raw[-1]["role"] == "assistant":
        raise DataError(f"{row.location}: a prompt must end with a user's message, found the assistant's")
    text = encoder.render(raw, row.location, add_generation_prompt=True)
    return text, encoder.bare(text)


def prompt_of(row: Row, raw: str | list[Message], text: str, ids: Sequence[int]) -> Prompt:
    """Return a row's prompt, with every other column of the row."""
    return Prompt(text, tuple(ids), raw, {name: cell for name, cell in row.values.items() if name != "prompt"})


def token_sequence(
    fields: Sequence[str | list[Message]], encoder: Encoder, row: Row, *, is_last_answer: bool
) -> TokenSequence:
    """Tokenize the fields [response] or [prompt, response].

    Args:
        fields: all text, or all lists of messages.
        encoder: of the model.
        row: for the location.
        is_last_answer: the response is the last answer of the one conversation, and what precedes it is the prompt.
    """
    texts = [field for field in fields if isinstance(field, str)]
    if len(texts) == len(fields):
        prompt_ids = encoder.prompt(texts[0]) if len(texts) == 2 else encoder.bos_ids
        response_ids = encoder.response(texts[-1])
        if len(texts) == 1 and response_ids[: len(prompt_ids)] == prompt_ids:
            response_ids = response_ids[len(prompt_ids) :]  # the text spells out its BOS
        return TokenSequence(prompt_ids, response_ids, [False] * len(prompt_ids) + [True] * len(response_ids))
    conversations = [field for field in fields if isinstance(field, list)]
    if texts:
        raise DataError(f"{row.location}: prompt and response must both be text or both be lists of messages")
    ids, emitted = encoder.conversation([message for part in conversations for message in part], row.location)
    if len(conversations) == 1 and not is_last_answer:
        return TokenSequence([], ids, emitted)
    starts = [i for i, flag in enumerate(emitted) if flag and (i == 0 or not emitted[i - 1])]
    earlier = conversations[0][:-1] if is_last_answer else conversations[0]
    num_earlier = sum(message["role"] == "assistant" for message in earlier)
    if num_earlier >= len(starts):
        raise DataError(f"{row.location}: the chat template leaves the answer empty")
    return TokenSequence(ids[: starts[num_earlier]], ids[starts[num_earlier] :], emitted)
