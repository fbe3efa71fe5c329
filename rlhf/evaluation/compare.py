"""Responses and their judgements -> one summary per policy, side by side, as JSON and as tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.readers import PolicyGenerations
from rlhf.evaluation.statistics.bootstrap import Interval, mean_difference_interval, mean_interval, win_rate_interval
from rlhf.evaluation.table import Cell, markdown_table, text_table
from rlhf.evaluation.text_metrics import distinct_n, repeated_bigram_share
from rlhf.printable import one_line

Floats = NDArray[np.float64]


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
    fluency_median: float | None
    """Median perplexity of the responses, given their prompts, under the fluency model."""
    fluency_ratio: float | None
    """`fluency_median` over that of human text; None for human text itself."""
    kl: Interval | None
    """Nats per sequence; None for human text."""
    kl_per_token: float | None
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
    ended: float | None
    """Share of responses that the policy ended with EOS; None for human text."""


_ROWS = {
    "gold_win_rate": "win rate against {first}, gold judge",
    "embedding_win_rate": "win rate against {first}, embedding judge",
    "kl": "KL to the reference, nats per sequence",
    "fluency_ratio": "perplexity over human text's, fluency model",
    "distinct_2": "distinct-2",
    "gold": "gold score",
    "gold_gain": "gold score above {first}",
    "gold_positive": "share gold-positive",
    "embedding": "embedding-judge score",
    "embedding_positive": "share embedding-positive",
    "reward_win_rate": "win rate against {first}, reward model",
    "reward": "reward-model score",
    "kl_per_token": "KL to the reference, nats per token",
    "fluency_median": "perplexity, fluency model, median",
    "perplexity_median": "perplexity, trigrams, median",
    "perplexity_mean": "perplexity, trigrams, mean",
    "disfluent": "share less fluent than 95 % of human text",
    "repeated_bigrams": "repeated bigrams",
    "repetitive": "share more repetitive than 95 % of human text",
    "length": "length, tokens",
    "ended": "share ended by EOS",
}

_FIRST = ("gold_win_rate", "embedding_win_rate", "kl", "fluency_ratio", "distinct_2")
"""The rows that matter most; the others stand below."""
HUMAN = "human text"
"""Header of the human column; no policy can have this name."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What everybody wrote for one prompt."""

    prompt: str
    texts: dict[str, str]
    """By the name of a policy, or `HUMAN`."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Policies summarised on the same prompts; the others are compared with the first."""

    num_prompts: int
    policies: dict[str, PolicySummary]
    human: PolicySummary | None = None
    """Of human text, cut at the same length; None if there is none."""
    samples: tuple[Sample, ...] = ()
    """Drawn by the seed."""

    def to_json(self) -> str:
        """Return the comparison as JSON text, numbers in full."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_table(self) -> str:
        """Return the comparison as an aligned table, one column per policy; the rows that matter most come first."""
        first, rest = self._cells(_FIRST), self._cells([key for key in _ROWS if key not in _FIRST])
        lines = text_table(self._header(), [*first, *rest]).splitlines()
        return "\n".join([*lines[: 2 + len(first)], "", *lines[2 + len(first) :]])

    def to_markdown(self) -> str:
        """Return the comparison as two Markdown tables, one column per policy; what matters most is in the first."""
        header = self._header()
        first, rest = self._cells(_FIRST), self._cells([key for key in _ROWS if key not in _FIRST])
        return f"{markdown_table(header, first)}\n\n{markdown_table(['the rest', *header[1:]], rest)}"

    def samples_text(self) -> str:
        """Return the samples for a terminal: each prompt, and below it what everybody wrote."""
        blocks = [
            "\n".join(
                [
                    f"{one_line(sample.prompt)} ...",
                    *(f"  {name}: {one_line(text)}" for name, text in sample.texts.items()),
                ]
            )
            for sample in self.samples
        ]
        return "\n\n".join(blocks)

    def samples_markdown(self) -> str:
        """Return the samples as a Markdown table, one row per prompt."""
        names = list(self.samples[0].texts) if self.samples else []
        return markdown_table(["prompt", *names], [[sample.prompt, *sample.texts.values()] for sample in self.samples])

    @property
    def _columns(self) -> dict[str, PolicySummary]:
        return self.policies if self.human is None else {**self.policies, HUMAN: self.human}

    def _header(self) -> list[str]:
        return [f"on {self.num_prompts} prompts", *self._columns]

    def _cells(self, keys: Iterable[str]) -> list[list[Cell]]:
        first = next(iter(self.policies))
        rows: list[list[Cell]] = []
        for key in keys:
            measured = [getattr(summary, key) for summary in self._columns.values()]
            if any(value is not None for value in measured):
                rows.append([_ROWS[key].format(first=first), *(_shown(value) for value in measured)])
        return rows


def summarise(
    policies: Mapping[str, PolicyGenerations],
    *,
    human: PolicyGenerations | None = None,
    samples: Sequence[Sample] = (),
    seed: int = 0,
) -> Comparison:
    """Summarise every policy, and compare each with the first, prompt by prompt; `human` texts are summarised alike.

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
    people = None if human is None else replace(_summary(human, None, seed), ended=None)
    typical = people.fluency_median if people else None
    summaries = {
        name: _summary(policy, None if name == first_name else first, seed, typical)
        for name, policy in policies.items()
    }
    return Comparison(len(first.prompts), summaries, people, tuple(samples))


def side_by_side(
    policies: Mapping[str, PolicyGenerations], human: PolicyGenerations | None, num_samples: int, seed: int
) -> list[Sample]:
    """Return the texts of every policy on at most `num_samples` prompts, drawn by the seed and not chosen.

    Human texts stand beside them if they answer the same prompts.
    """
    prompts = next(iter(policies.values())).prompts
    drawn = np.random.default_rng(seed).permutation(len(prompts))[:num_samples]
    shown = dict(policies)
    if human is not None and list(human.prompts) == list(prompts):
        shown[HUMAN] = human
    return [Sample(prompts[row], {name: policy.texts[row] for name, policy in shown.items()}) for row in sorted(drawn)]


def _summary(
    policy: PolicyGenerations, first: PolicyGenerations | None, seed: int, human_fluency: float | None = None
) -> PolicySummary:
    fluency = _median(policy.fluency)
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
        fluency_median=fluency,
        fluency_ratio=fluency / human_fluency if fluency and human_fluency else None,
        kl=_mean(policy.kl, seed),
        kl_per_token=None if policy.kl is None else float(policy.kl.sum() / max(int(policy.lengths.sum()), 1)),
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
    return [scores is not None for scores in (policy.gold, policy.reward_scores, policy.embedding, policy.fluency)]


def _median(perplexity: Floats | None) -> float | None:
    """Return the median of those that are defined, None where none is."""
    return None if perplexity is None or np.isnan(perplexity).all() else float(np.nanmedian(perplexity))


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
