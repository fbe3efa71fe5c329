"""The audit of a judge: does it prefer length or a place, does it decide, do others agree?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.judges.verdicts import Verdicts
from rlhf.evaluation.statistics.matrix import preferences_by_score

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What is known about one judge; None where there was nothing to look at."""

    num_pairs: int
    """Pairs of answers that it compared, over all policies."""
    ties: float | None
    """Share of them that it called equal."""
    prefers_longer: float | None
    """Share of the decided pairs of unequal length in which the longer answer won; 0.5 is no preference."""
    length_correlation: float | None
    """Correlation of score and length over all answers; None for a judge of pairs."""
    agreement: dict[str, float] = field(default_factory=dict)
    """By other judge: share of the pairs decided by both in which both prefer the same answer."""
    flipped: float | None = None
    """Share of pairs in which the verdict changed when the answers changed places; None for a judge of scores."""
    first_place: float | None = None
    """Share of its decided answers that prefer the first place; 0.5 is no preference; None for a judge of scores."""
    num_unreadable: int = 0
    """Its answers that named no winner."""
    num_unscored: int = 0
    """Answers of policies that were left out because it gave some policy's answer no score."""


def audits(judges: Mapping[str, Verdicts]) -> dict[str, Audit]:
    """Return the audit of every judge, by name."""
    return {
        name: _audit(verdicts, {other: each for other, each in judges.items() if other != name})
        for name, verdicts in judges.items()
    }


def _audit(verdicts: Verdicts, others: Mapping[str, Verdicts]) -> Audit:
    won = _joined(list(verdicts.preferences.values()))
    longer = _joined(
        [
            preferences_by_score(verdicts.lengths[ours], verdicts.lengths[theirs])
            for ours, theirs in verdicts.preferences
        ]
    )
    agreement = {name: _agreement(verdicts, other) for name, other in others.items()}
    forward = _joined([each.ours_first for each in verdicts.asked])
    backward = _joined([each.theirs_first for each in verdicts.asked])
    was_asked = ~np.isnan(forward)
    forward, backward = forward[was_asked], backward[was_asked]
    places = np.concatenate([forward, 1 - backward])
    return Audit(
        num_pairs=len(won),
        ties=_share(won == 0.5),
        prefers_longer=_same_side(won, longer),
        length_correlation=_length_correlation(verdicts),
        agreement={name: share for name, share in agreement.items() if share is not None},
        flipped=_share(forward != backward),
        first_place=_share(places[places != 0.5] == 1.0),
        num_unreadable=sum(each.num_unreadable for each in verdicts.asked),
        num_unscored=int((~verdicts.rows).sum()) * len(verdicts.lengths),
    )


def _agreement(ours: Verdicts, theirs: Verdicts) -> float | None:
    mine, others = [], []
    both = ours.rows & theirs.rows
    for pair, won in ours.preferences.items():
        said = theirs.preference(*pair)
        if said is not None:
            mine.append(won[both[ours.rows]])
            others.append(said[both[theirs.rows]])
    return _same_side(_joined(mine), _joined(others))


def _same_side(first: Floats, second: Floats) -> float | None:
    """Return how often two preferences fall on one side, where neither is a tie."""
    decided = (first != 0.5) & (second != 0.5)
    return _share(first[decided] == second[decided])


def _length_correlation(verdicts: Verdicts) -> float | None:
    if verdicts.scores is None:
        return None
    scores, lengths = (_joined(list(each.values())) for each in (verdicts.scores, verdicts.lengths))
    if len(scores) < 2 or not scores.std() > 0 or not lengths.std() > 0:
        return None
    return float(np.corrcoef(scores, lengths)[0, 1])


def _joined(parts: list[Floats]) -> Floats:
    return np.concatenate(parts) if parts else np.zeros(0)


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None
