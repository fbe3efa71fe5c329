"""A conversation as token ids: what a model reads before each answer, and what it is to say.

Training must see the ids that sampling sees. So the text before an answer is the one that sampling gets, up to the
template's generation prompt, and it is tokenized alone. What follows it in the rendered conversation is the answer.

Some templates write earlier answers otherwise than the last one: those of thinking models leave out what an assistant
thought before. Then no single text holds all answers as they were said, and each answer gets a text of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from rlhf.data.bad_rows import BadRow
from rlhf.data.chat import Span
from rlhf.data.encoder import Encoder
from rlhf.data.records import Message, Tools

_PROBE = "The-answer-goes-here"
"""An answer that no template changes, to see what it writes around one."""


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """A prompt that may be cut on the left, and a response that may not."""

    prompt_ids: list[int]
    response_ids: list[int]
    emitted: list[bool]
    """For prompt and response, True on what an assistant emitted."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages of a row, of which some answers are to be learnt."""

    messages: Sequence[Message]
    location: str
    """Of the row."""
    tools: Tools = None
    """What the assistant may call."""
    opening: Sequence[Message] = ()
    """A prompt that ends with the beginning of an answer: with what the message at its last place begins."""

    def answers(self) -> list[int]:
        """Return the places of the assistant's messages; a greeting with nothing before it answers nothing."""
        said = [turn for turn, message in enumerate(self.messages) if message["role"] == "assistant"]
        return [turn for turn in said if turn or self.opening]


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
    return _answer_apart(conversation, encoder) if together is None else together


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
    text = _text(conversation, encoder)
    before = _before(conversation, turns[0], encoder)
    before = before if text.startswith(before) else ""
    prompt_ids = encoder.bare(before)
    response_ids = encoder.with_eos(encoder.following(before, text[len(before) :]))
    return TokenSequence(prompt_ids, response_ids, [False] * len(prompt_ids) + [True] * len(response_ids))


def _together(conversation: Conversation, turns: Sequence[int], encoder: Encoder) -> TokenSequence | None:
    """Return one sequence in which each answer is what sampling would have to give; None where there is none."""
    text = _text(conversation, encoder)
    befores = [_before(conversation, turn, encoder) for turn in turns]
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
        after = _text(up_to(conversation, turn), encoder) if turn < len(conversation.messages) - 1 else text
        if not (text.startswith(after) and after.startswith(before)):
            return None
        spans.append((len(before), len(after)))
    ends = [0, *(end for _, end in spans)]
    in_order = all(end <= start for end, (start, _) in zip(ends, spans, strict=False))
    return spans if in_order else None


def _learnt(spans: Sequence[Span], befores: Sequence[str], text: str) -> list[Span]:
    """Return what generation tags mark in the answers that are learnt, less what a generation prompt supplies."""
    first = _num_shared(text, befores[0])
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


def _answer_apart(conversation: Conversation, encoder: Encoder) -> TokenSequence:
    """Return an answer whose rendered conversation does not begin with what a model reads before it.

    Another answer in its place shows what the template writes around one.
    """
    *earlier, last = conversation.messages
    before = _before(conversation, len(earlier), encoder)
    around = _text(replace(conversation, messages=[*earlier, {**last, "content": _PROBE}]), encoder)
    head, found, ending = around.rpartition(_PROBE)
    opened = before[_num_shared(before, head) :]
    said = _after_question(conversation, before, head, encoder)
    if said is None:
        said = _after_opening(str(last.get("content", "")), opened, ending)
    if said is None or not found:
        raise _unmarked(conversation, opened)
    prompt_ids = encoder.bare(before)
    response_ids = encoder.with_eos(encoder.following(before, said))
    return TokenSequence(prompt_ids, response_ids, [False] * len(prompt_ids) + [True] * len(response_ids))


def _after_question(conversation: Conversation, before: str, head: str, encoder: Encoder) -> str | None:
    """Return what follows the last question, where only what precedes it is rendered otherwise, as Mistral's system."""
    question = str(conversation.messages[-2].get("content", "")).strip() if len(conversation.messages) > 1 else ""
    asked = before[before.rfind(question) :] if question and question in before else ""
    text = _text(conversation, encoder)
    if not asked or asked not in head or not text.startswith(head):
        return None
    return text[head.rindex(asked) + len(asked) :]


def _after_opening(content: str, opened: str, ending: str) -> str | None:
    """Return an answer less the beginning that the generation prompt has said already, such as <think>."""
    beginning = opened.strip()
    if not beginning or not content.lstrip().startswith(beginning):
        return None
    said = content.lstrip()[len(beginning) :]
    return (said.lstrip() if opened != opened.rstrip() else said) + ending


def _unmarked(conversation: Conversation, opened: str) -> BadRow:
    return BadRow(
        conversation.location,
        f"nothing in the chat template marks what the assistant said: its generation prompt ends with "
        f"{opened[-40:]!r}, and this answer does not begin with that - begin the answer so, or give a template of your "
        "own (model.chat_template) with {% generation %} tags around what the assistant says",
        "nothing in the chat template marks what the assistant said",
    )


def _num_shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    if one.startswith(other):
        return len(other)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _before(conversation: Conversation, turn: int, encoder: Encoder) -> str:
    """Return what a model reads before the answer at `turn`."""
    messages, opening = conversation.messages[:turn], conversation.opening
    if opening and turn == len(opening) - 1:
        messages = opening
    return encoder.chat.before_answer(messages, conversation.location, conversation.tools)


def _text(conversation: Conversation, encoder: Encoder) -> str:
    return encoder.chat.render(
        conversation.messages, conversation.location, tools=conversation.tools, add_generation_prompt=False
    )


def up_to(conversation: Conversation, turn: int) -> Conversation:
    """Return a conversation that ends with the message at `turn`."""
    return replace(conversation, messages=conversation.messages[: turn + 1])
