"""An answer whose rendered conversation does not begin with what a model reads before it."""

from dataclasses import replace
from itertools import takewhile

from rlhf.data.bad_rows import BadRow
from rlhf.data.conversations.conversation import Conversation, TokenSequence, before_answer, rendered
from rlhf.data.encoder import Encoder

_PROBE = "The-answer-goes-here"
"""An answer that no template changes, to see what it writes around one."""


def answer_apart(conversation: Conversation, encoder: Encoder) -> TokenSequence:
    """Return an answer whose rendered conversation does not begin with what a model reads before it.

    Another answer in its place shows what the template writes around one.
    """
    *earlier, last = conversation.messages
    before = before_answer(conversation, len(earlier), encoder)
    around = rendered(replace(conversation, messages=[*earlier, {**last, "content": _PROBE}]), encoder)
    head, found, ending = around.rpartition(_PROBE)
    opened = before[num_shared(before, head) :]
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
    text = rendered(conversation, encoder)
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


def num_shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with alike."""
    if one.startswith(other):
        return len(other)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
