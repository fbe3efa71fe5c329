"""Checks a reward's answer: for each episode a number, None, or token scores."""

from collections.abc import Sequence

from rlhf.rewards.checks import checked, number
from rlhf.rewards.protocol import Episode, Score
from rlhf.rewards.token_scores import Ends, token_scores


def checked_answers(
    raw: object, episodes: Sequence[Episode], where: str, *, ends: Ends | None = None, first: int = 0
) -> list[Score]:
    """Turn what a reward returned into scores, or refuse it.

    Args:
        raw: list or tuple with a number, None, or list (see `token_scores`) per episode; or a 1-D tensor.
        episodes: what was scored.
        where: names the reward in messages.
        ends: tells where tokens end, for spans of characters.
        first: the index of the first episode in messages.

    Raises:
        BadScores: some scores cannot be used.
        RewardError: wrong container or length.
    """

    def read(score: object, index: int) -> Score:
        found = score.tolist() if hasattr(score, "tolist") else score
        if isinstance(found, list | tuple):
            return token_scores(found, episodes[index], ends)
        return None if found is None else number(found)

    return checked(raw, len(episodes), where, [episode.prompt for episode in episodes], read, first=first)


def total(score: Score) -> float | None:
    """Return the score of the whole response: the score itself, or the sum over its tokens."""
    return sum(score) if isinstance(score, list) else score
