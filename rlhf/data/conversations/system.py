"""A system message in front of a template that refuses one: kept, merged into the user's message, or dropped."""

from collections.abc import Sequence
from typing import Literal

from rlhf.data.bad_rows import BadRow
from rlhf.data.records import Message

System = Literal["keep", "merge_into_user", "drop"]


def with_system(messages: Sequence[Message], system: System, location: str) -> list[Message]:
    """Return messages in which system messages are treated as `system` says.

    "merge_into_user" puts each before the text of the next user's message, with an empty line between them.

    Raises:
        BadRow: no user's message follows the one that is to be merged.
    """
    if system == "drop":
        return [message for message in messages if message["role"] != "system"]
    return _merged(messages, location) if system == "merge_into_user" else list(messages)


def _merged(messages: Sequence[Message], location: str) -> list[Message]:
    made: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "system":
            waiting.append(message["content"])
        elif message["role"] == "user" and waiting:
            made.append({**message, "content": "\n\n".join([*waiting, message["content"]])})
            waiting = []
        else:
            made.append(message)
    if waiting:
        raise BadRow(location, "system: merge_into_user needs a user's message after the system's - set system: drop")
    return made
