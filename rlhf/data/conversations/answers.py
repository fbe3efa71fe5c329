"""The answers of a conversation as token ids: what a model reads before each, and what it is to say.

Training must see the ids that sampling sees. So the text before an answer is the one that sampling gets, up to the
template's generation prompt, and it is tokenized alone. What follows it in the rendered conversation is the answer.

Some templates write earlier answers otherwise than the last one: those of thinking models leave out what an assistant
thought before. Then no single text holds all answers as they were said, and each answer gets a text of its own.
"""

from collections.abc import Sequence

from rlhf.data.conversations.chat import Span
from rlhf.data.conversations.conversation import Conversation, TokenSequence, before_answer, rendered, up_to
from rlhf.data.conversations.lone_answer import answer_apart, num_shared
from rlhf.data.encoder import Encoder


def sequences(conversation: Conversation, turns: Sequence[int], encoder: Encoder) -> list[TokenSequence]:
    """Return the answers at `turns` in one sequence, or one sequence an answer if the template rewrites earlier turns.

    Args:
        conversation: ends with the last of `turns`.
        turns: places of messages of the assistant, at least one.
        encoder: of the model.

    Raises:
        BadRow: the template refuses the conversation, or nothing marks what the assistant said.
    """
    together = _together(conversation, turns, encoder)
    if together is not None:
        return [together]
    return [answer(up_to(conversation, turn), encoder) for turn in turns]


def answer(conversation: Conversation, encoder: Encoder) -> TokenSequence:
    """Return what precedes the last message, an assistant's, and that message.

    Raises:
        BadRow: the template refuses the conversation, or its generation prompt does not lead to this answer.
    """
    together = _together(conversation, [len(conversation.messages) - 1], encoder)
    return answer_apart(conversation, encoder) if together is None else together


def whole(conversation: Conversation, num_prompt: int, encoder: Encoder) -> TokenSequence:
    """Return all messages in one sequence; what the first `num_prompt` make is the prompt.

    Without marks for earlier answers, where the template rewrites them.
    """
    turns = [turn for turn in conversation.answers() if turn >= num_prompt]
    if len(turns) == 1:
        return answer(conversation, encoder)
    together = _together(conversation, turns, encoder)
    if together is not None:
        return together
    text = rendered(conversation, encoder)
    before = before_answer(conversation, turns[0], encoder)
    before = before if text.startswith(before) else ""
    prompt_ids = encoder.bare(before)
    response_ids = encoder.with_eos(encoder.following(before, text[len(before) :]))
    return TokenSequence(prompt_ids, response_ids, [False] * len(prompt_ids) + [True] * len(response_ids))


def _together(conversation: Conversation, turns: Sequence[int], encoder: Encoder) -> TokenSequence | None:
    """Return one sequence in which each answer is what sampling would have to give; None where there is none."""
    text = rendered(conversation, encoder)
    befores = [before_answer(conversation, turn, encoder) for turn in turns]
    spans = encoder.chat.marked(conversation.messages, conversation.location, conversation.tools)
    spans = _between(conversation, turns, befores, text, encoder) if spans is None else _learnt(spans, befores, text)
    if not spans:
        return None
    start = len(befores[0]) if text.startswith(befores[0]) else spans[0][0]
    sequence = _tokenized(text, start, spans, encoder)
    if len(turns) == 1 or not text.startswith(befores[-1]):
        return sequence
    # Pieces that were tokenized one by one must give what sampling reads before the last answer.
    expected = encoder.bare(befores[-1])
    return sequence if (sequence.prompt_ids + sequence.response_ids)[: len(expected)] == expected else None


def _between(
    conversation: Conversation, turns: Sequence[int], befores: Sequence[str], text: str, encoder: Encoder
) -> list[Span] | None:
    """Return where the answers stand: from each generation prompt to the end of the turn; None if turns change."""
    spans: list[Span] = []
    for turn, before in zip(turns, befores, strict=True):
        after = rendered(up_to(conversation, turn), encoder) if turn < len(conversation.messages) - 1 else text
        if not (text.startswith(after) and after.startswith(before)):
            return None
        spans.append((len(before), len(after)))
    ends = [0, *(end for _, end in spans)]
    in_order = all(end <= start for end, (start, _) in zip(ends, spans, strict=False))
    return spans if in_order else None


def _learnt(spans: Sequence[Span], befores: Sequence[str], text: str) -> list[Span]:
    """Return what generation tags mark in the answers that are learnt, less what a generation prompt supplies."""
    first = num_shared(text, befores[0])
    supplied = [len(before) for before in befores if text.startswith(before)]
    kept = [(max([start, *(place for place in supplied if start < place < end)]), end) for start, end in spans]
    return [(start, end) for start, end in kept if start >= first]


def _tokenized(text: str, start: int, spans: Sequence[Span], encoder: Encoder) -> TokenSequence:
    """Tokenize a text piece by piece: what precedes `start`, then spans and what lies between them."""
    prompt_ids = encoder.bare(text[:start])
    response_ids: list[int] = []
    emitted = [False] * len(prompt_ids)
    done, earlier = start, text[:start]
    for begin, end in spans:
        gap = encoder.following(earlier, text[done:begin])
        earlier = text[done:begin] or earlier
        found = encoder.following(earlier, text[begin:end])
        num_said = encoder.end_of_turn(found) or len(found)  # a line end after the EOS is the template's
        response_ids += gap + found
        emitted += [False] * len(gap) + [True] * num_said + [False] * (len(found) - num_said)
        done, earlier = end, text[begin:end]
    rest = encoder.following(earlier, text[done:])
    ended = encoder.with_eos(response_ids + rest)
    num_added = max(0, len(ended) - len(response_ids + rest))
    flags = [*emitted, *([False] * len(rest))][: len(prompt_ids) + len(ended)]
    return TokenSequence(prompt_ids, ended, flags + [True] * num_added)
