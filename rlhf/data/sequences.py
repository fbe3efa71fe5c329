"""The fields of a row as token ids: prompts, and sequences of a prompt that may be cut and a response that may not."""

from collections.abc import Sequence

from rlhf.data import cells
from rlhf.data.bad_rows import BadRow
from rlhf.data.conversations.answers import sequences, whole
from rlhf.data.conversations.conversation import Conversation, TokenSequence, up_to
from rlhf.data.conversations.messages import goes_on, with_continuation
from rlhf.data.encoder import Encoder
from rlhf.data.records import Message, Prompt, Row


def prompt_ids_of(raw: str | list[Message], encoder: Encoder, row: Row) -> tuple[str, list[int]]:
    """Return a prompt as the model reads it, and its ids."""
    if isinstance(raw, str):
        return raw, encoder.prompt(raw)
    text = encoder.chat.before_answer(raw, row.location, cells.tools(row))
    return text, encoder.bare(text)


def prompt_of(row: Row, raw: str | list[Message], text: str, ids: Sequence[int]) -> Prompt:
    """Return a row's prompt, with every other column of the row."""
    return Prompt(text, tuple(ids), raw, {name: cell for name, cell in row.values.items() if name != "prompt"})


def token_sequence(fields: Sequence[str | list[Message]], encoder: Encoder, row: Row) -> TokenSequence:
    """Tokenize the fields [response] or [prompt, response], all text or all lists of messages, into one sequence.

    Raises:
        DataError: the fields are of two kinds, or the template does not take them.
    """
    if isinstance(fields[-1], str):
        return _plain(fields, encoder, row)
    conversation, num_prompt = _joined(fields, row)
    sequence = whole(conversation, num_prompt, encoder)
    return without_prompt(sequence) if len(fields) == 1 else sequence


def with_one_prompt(chosen: TokenSequence, rejected: TokenSequence) -> tuple[TokenSequence, TokenSequence]:
    """Return two sequences with the same prompt: with none, where a template writes it otherwise before one of them."""
    if chosen.prompt_ids == rejected.prompt_ids:
        return chosen, rejected
    return without_prompt(chosen), without_prompt(rejected)


def without_prompt(sequence: TokenSequence) -> TokenSequence:
    """Return the same ids as a response throughout, of which nothing may be cut."""
    return TokenSequence([], sequence.prompt_ids + sequence.response_ids, sequence.emitted)


def learnt_sequences(
    fields: Sequence[str | list[Message]], encoder: Encoder, row: Row, *, every_answer: bool
) -> list[TokenSequence]:
    """Tokenize the same fields into what is learnt from them; several sequences where a template rewrites turns.

    Args:
        fields: [messages] or [text], of which the last answer or all of the text is the response, or
            [prompt, response].
        encoder: of the model.
        row: for the location.
        every_answer: all answers are learnt, not those of the response alone.

    Raises:
        DataError: the fields are of two kinds, or the template does not take them.
    """
    if isinstance(fields[-1], str):
        return [_plain(fields, encoder, row)]
    conversation, num_prompt = _joined(fields, row)
    turns = conversation.answers()
    if not every_answer:
        turns = [turn for turn in turns if turn >= num_prompt] if len(fields) == 2 else turns[-1:]
    return sequences(conversation, turns, encoder)


def _joined(fields: Sequence[str | list[Message]], row: Row) -> tuple[Conversation, int]:
    """Return the one conversation that the fields make, and how many of its messages are the prompt's."""
    parts = [field for field in fields if isinstance(field, list)]
    if len(parts) < len(fields):
        raise _two_kinds(row)
    prompt, response = parts if len(parts) == 2 else ([], parts[0])
    continued = goes_on(prompt, response)
    messages = with_continuation(prompt, response)
    num_prompt = len(prompt) - continued
    conversation = Conversation(messages, row.location, cells.tools(row), prompt if continued else ())
    answers = [turn for turn in conversation.answers() if turn >= num_prompt]
    if not answers:
        raise BadRow(
            row.location,
            "a conversation needs an answer: an assistant's message after another one; found roles "
            f"{[message['role'] for message in messages]}",
            "no answer: an assistant's message after another one",
        )
    return up_to(conversation, answers[-1]), num_prompt


def _plain(fields: Sequence[str | list[Message]], encoder: Encoder, row: Row) -> TokenSequence:
    texts = [field for field in fields if isinstance(field, str)]
    if len(texts) < len(fields):
        raise _two_kinds(row)
    prompt_ids = encoder.prompt(texts[0]) if len(texts) == 2 else encoder.bos_ids
    response_ids = encoder.response(texts[-1])
    if len(texts) == 1 and response_ids[: len(prompt_ids)] == prompt_ids:
        response_ids = response_ids[len(prompt_ids) :]  # the text spells out its BOS
    return TokenSequence(prompt_ids, response_ids, [False] * len(prompt_ids) + [True] * len(response_ids))


def _two_kinds(row: Row) -> BadRow:
    return BadRow(row.location, "prompt and response must both be text or both be lists of messages")
