"""The numbers of one policy: what every judge says of it, its distance from the reference, and its words."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf.config.judges import EMBEDDING, GOLD
from rlhf.evaluation.judges.verdicts import Verdicts
from rlhf.evaluation.readers import PolicyGenerations
from rlhf.evaluation.statistics.bootstrap import Interval, mean_interval
from rlhf.evaluation.statistics.length_control import length_controlled
from rlhf.evaluation.statistics.resampling import by_prompt
from rlhf.evaluation.text_metrics import distinct_n, repeated_bigram_share

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What one judge says about a policy; None where it says no such thing, or for the first policy against itself."""

    score: Interval | None = None
    """Mean score; that of the gold judges is in standard deviations of human text."""
    positive: float | None = None
    """Share of texts that a gold judge calls favourable, penalties aside."""
    gain: Interval | None = None
    """Mean of the score minus the first policy's, on the same prompts."""
    win_rate: Interval | None = None
    """Share of prompts on which this policy is preferred to the first; a tie counts 1/2."""
    length_controlled: Interval | None = None
    """The win rate if the two policies' answers were equally long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySummary:
    """The numbers of one policy; None without what they need."""

    judges: dict[str, Judged]
    """By judge, those that training never saw first."""
    kl: Interval | None
    """Nats per sequence; None for human text."""
    kl_bound: float | None
    """Of a best of n: log n - (n - 1) / n, the most that it is from its policy."""
    kl_per_token: float | None
    """Sum of the KL over all responses, divided by their tokens."""
    entropy: float | None
    """Nats per token of the policy's own responses, measured as minus their log probability; None if it is greedy."""
    fluency_median: float | None
    """Median perplexity of the responses, given their prompts, under the fluency model."""
    fluency_ratio: float | None
    """`fluency_median` over that of human text; None for human text itself."""
    human_perplexity: float | None
    """Median perplexity of human text under the policy: what alignment cost, beside that of the first policy."""
    perplexity_median: float | None
    """Under the language model of the gold judge."""
    perplexity_mean: float | None
    disfluent: float | None
    """Share of texts above the perplexity of 95 % of human texts."""
    repetitive: float | None
    """Share of texts that repeat more bigrams than 95 % of human texts of like length."""
    repeated_bigrams: float
    """Mean share of bigrams that occurred earlier in the same text."""
    distinct_1: float
    """Distinct words over all words of the texts together."""
    distinct_2: float
    """Distinct bigrams over all bigrams of the texts together."""
    length: Interval
    """Tokens per response."""
    ended: float | None
    """Share of responses that the policy ended with EOS; None for human text."""


def summary(
    policy: PolicyGenerations, judges: Mapping[str, Judged], seed: int, human_fluency: float | None = None
) -> PolicySummary:
    """Return the numbers of one policy; `human_fluency` is the median perplexity of human text."""
    fluency, gold, tokens = median(policy.fluency), policy.gold, max(int(policy.lengths.sum()), 1)
    return PolicySummary(
        judges=dict(judges),
        kl=None if policy.kl is None else _mean(policy.kl, policy, seed),
        kl_bound=policy.kl_bound,
        kl_per_token=None if policy.kl is None else float(policy.kl.sum() / tokens),
        entropy=None if policy.surprise is None else float(policy.surprise.sum() / tokens),
        fluency_median=fluency,
        fluency_ratio=fluency / human_fluency if fluency and human_fluency else None,
        human_perplexity=median(policy.human_perplexity),
        perplexity_median=float(np.median(gold.perplexity)) if gold else None,
        perplexity_mean=float(np.mean(gold.perplexity)) if gold else None,
        disfluent=_share(gold.is_disfluent) if gold else None,
        repetitive=_share(gold.is_repetitive) if gold else None,
        repeated_bigrams=float(np.mean([repeated_bigram_share(text) for text in policy.texts])),
        distinct_1=distinct_n(policy.texts, 1),
        distinct_2=distinct_n(policy.texts, 2),
        length=_mean(policy.lengths.astype(np.float64), policy, seed),
        ended=_share(policy.ended),
    )


def judged(name: str, policy: PolicyGenerations, verdicts: Verdicts, pair: tuple[str, str], seed: int) -> Judged:
    """Return what one judge says about a policy.

    Args:
        name: of the judge.
        policy: the policy.
        verdicts: of the judge.
        pair: the names of the policy and of the first one; the same for the first itself.
        seed: of the resamples.
    """
    ours, first = pair
    samples = policy.samples_per_prompt
    scores = None if verdicts.scores is None or not verdicts.rows.any() else verdicts.scores
    won = None if ours == first else verdicts.preference(ours, first)
    gain = None if scores is None or ours == first else scores[ours] - scores[first]
    controlled = None
    if won is not None:
        longer = verdicts.lengths[ours] - verdicts.lengths[first]
        controlled = length_controlled(won, longer, generator=_generator(seed), samples_per_prompt=samples).rate
    return Judged(
        score=None if scores is None else _mean(scores[ours], policy, seed),
        positive=positive_share(name, policy),
        gain=None if gain is None else _mean(gain, policy, seed),
        win_rate=None if won is None else _mean(won, policy, seed),
        length_controlled=controlled,
    )


def judged_alone(policy: PolicyGenerations, seed: int) -> dict[str, Judged]:
    """Return what the judges of scores say about texts that are compared with nobody, such as people's."""
    return {
        name: Judged(score=_mean(scores, policy, seed), positive=positive_share(name, policy))
        for name, scores in policy.scores.items()
        if not np.isnan(scores).any()
    }


def positive_share(name: str, policy: PolicyGenerations) -> float | None:
    """Return the share of texts that a gold judge calls favourable; None for other judges."""
    if name == GOLD and policy.gold is not None:
        return _share(policy.gold.positive)
    return _share(policy.scores[name] > 0) if name == EMBEDDING else None


def median(perplexity: Floats | None) -> float | None:
    """Return the median of those that are defined, None where none is."""
    return None if perplexity is None or np.isnan(perplexity).all() else float(np.nanmedian(perplexity))


def _mean(values: Floats, policy: PolicyGenerations, seed: int) -> Interval:
    # Every interval draws the same resamples: a policy's numbers do not depend on which others are compared.
    return mean_interval(by_prompt(values, policy.samples_per_prompt), generator=_generator(seed))


def _generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _share(flags: NDArray[np.bool_]) -> float:
    return float(np.mean(flags))
