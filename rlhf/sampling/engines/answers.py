"""What a server answered, checked: token ids and logprobs of one response, logprobs of a known sequence."""

from typing import Any

from rlhf.errors import EngineError
from rlhf.printable import quoted

SLACK = 1e-3
"""Nats by which rounding may lift a logprob above 0."""
MANY = 80
"""Characters of a finish reason that are shown."""


def drawn_tokens(choice: dict[str, Any], prompt: list[int], vocabulary: int, where: str) -> list[int]:
    """Return the tokens of a response.

    Args:
        choice: of `/v1/completions`.
        prompt: the token ids that were sent.
        vocabulary: how many ids the policy knows.
        where: names the server in a message.

    Raises:
        EngineError: there are none, the server read another prompt, or an id is none of the policy's.
    """
    ids, read = choice.get("token_ids"), choice.get("prompt_token_ids")
    if not isinstance(ids, list) or not ids:
        raise EngineError(
            f"half a response: {where} gave no token ids ({quoted(ids)}), finish_reason {quoted(_reason(choice))}"
        )
    if read is not None and read != prompt:
        raise EngineError(f"another prompt: {where} read {quoted(read)} where {quoted(prompt)} was sent")
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
            raise EngineError(
                f"another tokenizer: {where} drew the token {quoted(token)}, and the policy has the ids 0 to "
                f"{vocabulary - 1} - let the server serve the policy's own directory"
            )
    return ids


def drawn_logprobs(choice: dict[str, Any], num_tokens: int, where: str) -> list[float]:
    """Return the logprobs of a response's tokens.

    Raises:
        EngineError: there is not one for each token, or one is no logprob.
    """
    listed = choice.get("logprobs")
    found = listed.get("token_logprobs") if isinstance(listed, dict) else None
    if not isinstance(found, list) or len(found) != num_tokens:
        count = len(found) if isinstance(found, list) else "no"
        raise EngineError(f"logprobs missing: {where} gave {count} logprobs for {num_tokens} tokens")
    return [_logprob(each, where) for each in found]


def read_logprobs(choice: dict[str, Any], ids: list[int], where: str) -> list[float]:
    """Return the logprobs of all tokens but the first of a known sequence.

    Raises:
        EngineError: there is not one for each, or one is no logprob.
    """
    found = choice.get("prompt_logprobs")
    if not isinstance(found, list) or len(found) != len(ids):
        raise EngineError(f"logprobs missing: {where} gave {quoted(found)} for a known sequence of {len(ids)} tokens")
    logprobs = []
    for token, entry in zip(ids[1:], found[1:], strict=True):
        own = entry.get(str(token)) if isinstance(entry, dict) else None
        if not isinstance(own, dict):
            raise EngineError(f"logprobs missing: {where} gave {quoted(entry)} for the token {token} of a sequence")
        logprobs.append(_logprob(own.get("logprob"), where))
    return logprobs


def check_length(choice: dict[str, Any], num_tokens: int, limit: int, *, ended: bool, where: str) -> None:
    """Refuse a response that is neither ended nor as long as it may be.

    Raises:
        EngineError: it broke off, or is longer than was asked for.
    """
    if num_tokens > limit:
        raise EngineError(f"too long a response: {where} drew {num_tokens} tokens, asked for at most {limit}")
    if not ended and num_tokens < limit:
        raise EngineError(
            f"half a response: {where} stopped after {num_tokens} of {limit} tokens (finish_reason "
            f"{quoted(_reason(choice))}), and nothing in them ends a response - is its tokenizer the policy's?"
        )


def _reason(choice: dict[str, Any]) -> str:
    return str(choice.get("finish_reason"))[:MANY]


def _logprob(found: object, where: str) -> float:
    if isinstance(found, bool) or not isinstance(found, int | float) or not -float("inf") < found <= SLACK:
        raise EngineError(f"logprobs missing: {where} gave {quoted(found)} where a logprob was expected")
    return min(float(found), 0.0)
