"""Token scores, for process rewards: one number per response token, or spans of characters with a score."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from rlhf.rewards.checks import Unusable, number
from rlhf.rewards.protocol import Episode

Ends = Callable[[Sequence[int]], list[int]]
"""From the ids of a response to the position in its text, in characters, where each token ends."""


def ends_in(tokenizer: PreTrainedTokenizerBase) -> Ends:
    """Return a function that finds where in the text of a response each of its tokens ends.

    A token that holds only a part of a character ends where the previous character does.
    """

    def ends(ids: Sequence[int]) -> list[int]:
        texts = [str(tokenizer.decode(list(ids[: n + 1]), skip_special_tokens=True)) for n in range(len(ids))]
        found: list[int] = []
        for text in texts:
            is_whole = texts[-1].startswith(text)
            found.append(len(text) if is_whole else found[-1] if found else 0)
        return found

    return ends


def token_scores(raw: Sequence[object], episode: Episode, ends: Ends | None) -> list[float]:
    """Return one score per response token.

    Args:
        raw: as many numbers as the response has tokens (its EOS is one); or spans `(start, end, score)` of characters
            of the completion, end excluded. The score of a span goes to the token that completes its last character,
            and several on one token add up. An empty list scores no token.
        episode: what was scored.
        ends: needed for spans.

    Raises:
        Unusable: a wrong number of scores, a span outside the completion, or a score that is not a finite number.
    """
    num_tokens = len(episode.response_ids)
    if not any(isinstance(item, list | tuple) for item in raw):
        if raw and len(raw) != num_tokens:
            raise Unusable(f"has {len(raw)} numbers for the {num_tokens} tokens of the response")
        return [number(item) for item in raw] or [0.0] * num_tokens
    if ends is None:
        raise Unusable("has spans of characters, but there is no tokenizer to map them to tokens")
    places = ends(episode.response_ids)
    scores = [0.0] * num_tokens
    for span in raw:
        end, score = _span(span, len(episode.completion))
        token = next((index for index, place in enumerate(places) if place >= end), num_tokens - 1)
        scores[token] += score
    return scores


def _span(span: object, num_characters: int) -> tuple[int, float]:
    if not isinstance(span, list | tuple) or len(span) != 3:
        raise Unusable(f"mixes spans with {span!r}, which is not (start, end, score)")
    start, end, score = span
    if not (type(start) is int and type(end) is int and 0 <= start < end <= num_characters):
        raise Unusable(f"has the span ({start!r}, {end!r}) in a completion of {num_characters} characters")
    return end, number(score)
