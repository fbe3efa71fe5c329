"""Responses and their judgements -> one summary per policy, side by side, as JSON and as tables."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.bootstrap import Interval, mean_difference_interval, mean_interval, win_rate_interval
from rlhf.evaluation.gold import Judgement
from rlhf.evaluation.table import Cell, markdown_table, text_table
from rlhf.evaluation.text_metrics import distinct_n, repeated_bigram_share

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGenerations:
    """One response of a policy to each of N prompts, with its measurements."""

    prompts: Sequence[str]
    """[N], the same for every policy of a comparison."""
    texts: Sequence[str]
    """[N] what the judges read: prompt and response together, or the response alone, the same for every policy."""
    kl: Floats
    """[N] KL to the reference in nats, summed over the response."""
    lengths: NDArray[np.int64]
    """[N] response length in tokens, EOS included."""
    ended: NDArray[np.bool_]
    """[N] True where the policy emitted EOS."""
    reward_scores: Floats | None
    """[N] scores of the reward model that training used (the proxy); None if the comparison has none."""
    gold: Judgement | None
    """Of the gold judge on `texts`; None if the comparison has none."""
    embedding: Floats | None = None
    """[N] scores of the judge on embeddings of `texts`; None if the comparison has none."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("a comparison needs at least one prompt")
        scores = {"reward_scores": self.reward_scores, "gold.scores": self.gold.scores if self.gold else None}
        columns = {"texts": self.texts, "kl": self.kl, "lengths": self.lengths, "ended": self.ended, **scores}
        columns["embedding"] = self.embedding
        for name, column in columns.items():
            if column is not None and len(column) != len(self.prompts):
                raise ValueError(f"{name} must hold one entry per prompt ({len(self.prompts)}), found {len(column)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySummary:
    """The numbers of one policy; None without such a judge, or where the policy would be compared with itself."""

    reward: Interval | None
    """Mean score of the reward model."""
    gold: Interval | None
    """Mean score of the gold judge, in human standard deviations."""
    gold_positive: float | None
    """Share of texts that the gold classifier calls favourable, penalties aside."""
    reward_win_rate: Interval | None
    """Share of prompts on which the reward model prefers this policy to the first; a tie counts 1/2."""
    gold_win_rate: Interval | None
    """The same by the gold score."""
    gold_gain: Interval | None
    """Mean of gold score minus the first policy's, on the same prompts."""
    embedding: Interval | None
    """Mean score of the judge on embeddings, in human standard deviations."""
    embedding_positive: float | None
    """Share of texts that it calls favourable."""
    embedding_win_rate: Interval | None
    """Share of prompts on which it prefers this policy to the first; a tie counts 1/2."""
    kl: Interval
    """Nats per sequence."""
    kl_per_token: float
    """Sum of the KL over all responses, divided by their tokens."""
    perplexity_median: float | None
    """Under the language model of the gold judge."""
    perplexity_mean: float | None
    disfluent: float | None
    """Share of texts above the perplexity of 95 % of human texts."""
    repetitive: float | None
    """Share of texts that repeat more bigrams than 95 % of human texts of like length."""
    repeated_bigrams: float
    """Mean share of bigrams that occurred earlier in the same text."""
    distinct_2: float
    """Distinct bigrams over all bigrams of the texts together."""
    length: Interval
    """Tokens per response."""
    ended: float
    """Share of responses that the policy ended with EOS."""


_ROWS = {
    "gold_win_rate": "win rate against {first}, gold judge",
    "embedding_win_rate": "win rate against {first}, embedding judge",
    "gold": "gold score",
    "gold_gain": "gold score above {first}",
    "gold_positive": "share gold-positive",
    "embedding": "embedding-judge score",
    "embedding_positive": "share embedding-positive",
    "reward_win_rate": "win rate against {first}, reward model",
    "reward": "reward-model score",
    "kl": "KL to the reference, nats per sequence",
    "kl_per_token": "KL to the reference, nats per token",
    "perplexity_median": "perplexity, median",
    "perplexity_mean": "perplexity, mean",
    "disfluent": "share less fluent than 95 % of human text",
    "repeated_bigrams": "repeated bigrams",
    "repetitive": "share more repetitive than 95 % of human text",
    "distinct_2": "distinct-2",
    "length": "length, tokens",
    "ended": "share ended by EOS",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies summarised on the same prompts; the others are compared with the first."""

    num_prompts: int
    policies: dict[str, PolicySummary]

    def to_json(self) -> str:
        """Return the comparison as JSON text, numbers in full."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_table(self) -> str:
        """Return the comparison as an aligned table, one column per policy."""
        return text_table(*self._cells())

    def to_markdown(self) -> str:
        """Return the comparison as a Markdown table, one column per policy."""
        return markdown_table(*self._cells())

    def _cells(self) -> tuple[list[str], list[list[Cell]]]:
        first = next(iter(self.policies))
        rows: list[list[Cell]] = []
        for key, title in _ROWS.items():
            measured = [getattr(summary, key) for summary in self.policies.values()]
            if any(value is not None for value in measured):
                rows.append([title.format(first=first), *(_shown(value) for value in measured)])
        return [f"on {self.num_prompts} prompts", *self.policies], rows


def summarise(policies: Mapping[str, PolicyGenerations], *, seed: int = 0) -> Comparison:
    """Summarise every policy, and compare each with the first, prompt by prompt.

    Intervals are 95 % percentile intervals of 10,000 resamples of the prompts. Every interval draws the same resamples,
    so that the numbers of one policy do not depend on which others are compared.
    """
    if not policies:
        raise ValueError("a comparison needs at least one policy")
    first_name, first = next(iter(policies.items()))
    for name, policy in policies.items():
        if list(policy.prompts) != list(first.prompts):
            raise ValueError(f"{name} and {first_name} answered different prompts")
        if _judges_of(policy) != _judges_of(first):
            raise ValueError(f"{name} and {first_name} were not scored by the same judges")
    summaries = {
        name: _summary(policy, None if name == first_name else first, seed) for name, policy in policies.items()
    }
    return Comparison(len(first.prompts), summaries)


def side_by_side(policies: Mapping[str, PolicyGenerations], num_samples: int) -> str:
    """Return a Markdown table of the texts of every policy on the first `num_samples` prompts."""
    prompts = next(iter(policies.values())).prompts[:num_samples]
    rows = [[prompt, *(policy.texts[row] for policy in policies.values())] for row, prompt in enumerate(prompts)]
    return markdown_table(["prompt", *policies], rows)


def _summary(policy: PolicyGenerations, first: PolicyGenerations | None, seed: int) -> PolicySummary:
    gold, reward, embedding = policy.gold, policy.reward_scores, policy.embedding
    first_gold, first_reward = (first.gold, first.reward_scores) if first else (None, None)
    return PolicySummary(
        reward=_mean(reward, seed),
        gold=_mean(gold.scores, seed) if gold else None,
        gold_positive=_share(gold.positive) if gold else None,
        reward_win_rate=_win_rate(reward, first_reward, seed),
        gold_win_rate=_win_rate(gold.scores, first_gold.scores, seed) if gold and first_gold else None,
        gold_gain=_gain(gold.scores, first_gold.scores, seed) if gold and first_gold else None,
        embedding=_mean(embedding, seed),
        embedding_positive=None if embedding is None else _share(embedding > 0),
        embedding_win_rate=_win_rate(embedding, first.embedding if first else None, seed),
        kl=mean_interval(policy.kl, generator=np.random.default_rng(seed)),
        kl_per_token=float(policy.kl.sum() / max(int(policy.lengths.sum()), 1)),
        perplexity_median=float(np.median(gold.perplexity)) if gold else None,
        perplexity_mean=float(np.mean(gold.perplexity)) if gold else None,
        disfluent=_share(gold.is_disfluent) if gold else None,
        repetitive=_share(gold.is_repetitive) if gold else None,
        repeated_bigrams=float(np.mean([repeated_bigram_share(text) for text in policy.texts])),
        distinct_2=distinct_n(policy.texts, 2),
        length=mean_interval(policy.lengths, generator=np.random.default_rng(seed)),
        ended=_share(policy.ended),
    )


def _judges_of(policy: PolicyGenerations) -> list[bool]:
    return [scores is not None for scores in (policy.gold, policy.reward_scores, policy.embedding)]


def _mean(scores: Floats | None, seed: int) -> Interval | None:
    return None if scores is None else mean_interval(scores, generator=np.random.default_rng(seed))


def _win_rate(ours: Floats | None, theirs: Floats | None, seed: int) -> Interval | None:
    if ours is None or theirs is None:
        return None
    return win_rate_interval(ours, theirs, generator=np.random.default_rng(seed))


def _gain(ours: Floats, theirs: Floats, seed: int) -> Interval:
    return mean_difference_interval(ours, theirs, generator=np.random.default_rng(seed))


def _share(flags: NDArray[np.bool_]) -> float:
    return float(np.mean(flags))


def _shown(value: Interval | float | None) -> Cell:
    if isinstance(value, Interval):
        return f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"
    return value
