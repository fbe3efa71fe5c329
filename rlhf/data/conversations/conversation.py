"""What a row's conversation holds, what of it a model reads before an answer, and what becomes of it: token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf.data.encoder import Encoder
from rlhf.data.records import Message, Tools


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


def before_answer(conversation: Conversation, turn: int, encoder: Encoder) -> str:
    """Return what a model reads before the answer at `turn`."""
    messages, opening = conversation.messages[:turn], conversation.opening
    if opening and turn == len(opening) - 1:
        messages = opening
    return encoder.chat.before_answer(messages, conversation.location, conversation.tools)


def rendered(conversation: Conversation, encoder: Encoder) -> str:
    """Return the whole conversation as the template writes it."""
    return encoder.chat.render(
        conversation.messages, conversation.location, tools=conversation.tools, add_generation_prompt=False
    )


def up_to(conversation: Conversation, turn: int) -> Conversation:
    """Return a conversation that ends with the message at `turn`."""
    return replace(conversation, messages=conversation.messages[: turn + 1])
