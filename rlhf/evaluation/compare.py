"""Responses and their judgements -> policies compared: win rates, audits of the judges, a ranking, notes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from rlhf.evaluation.judges.audit import Audit, audits
from rlhf.evaluation.judges.pairwise import Compared
from rlhf.evaluation.judges.verdicts import Pair, Verdicts, verdicts_of_pairs, verdicts_of_scores
from rlhf.evaluation.readers import PolicyGenerations
from rlhf.evaluation.rows import HUMAN, judge_title, markdown, text
from rlhf.evaluation.statistics.bootstrap import Interval
from rlhf.evaluation.statistics.bradley_terry import ranking
from rlhf.evaluation.statistics.matrix import win_rate_matrix
from rlhf.evaluation.statistics.power import smallest_effect
from rlhf.evaluation.summary import PolicySummary, judged, judged_alone, median, summary
from rlhf.evaluation.table import markdown_table
from rlhf.printable import one_line

MATTERS = 0.05
"""A win rate at equal length that differs by more from the plain one is noted."""


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
    samples_per_prompt: int = 1
    win_rates: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    """By judge, then by policy, against each other policy."""
    rankings: dict[str, dict[str, Interval]] = field(default_factory=dict)
    """By judge: the Bradley-Terry log strength of each policy, the first one's being 0; of more than two policies."""
    audits: dict[str, Audit] = field(default_factory=dict)
    """By judge."""
    smallest_effect: float | None = None
    """The difference of a win rate from 1/2 that this many prompts find four times in five; None without a judge."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers should know."""

    def to_json(self) -> str:
        """Return the comparison as JSON text, numbers in full."""
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    def to_table(self) -> str:
        """Return the comparison as aligned tables; the rows that matter most come first, the judges' audit last."""
        return text(self)

    def to_markdown(self) -> str:
        """Return the comparison as Markdown tables; what matters most is in the first."""
        return markdown(self)

    def samples_text(self) -> str:
        """Return the samples for a terminal: each prompt, and below it what everybody wrote."""
        blocks = [
            "\n".join(
                [
                    f"{one_line(sample.prompt)} ...",
                    *(f"  {name}: {one_line(written)}" for name, written in sample.texts.items()),
                ]
            )
            for sample in self.samples
        ]
        return "\n\n".join(blocks)

    def samples_markdown(self) -> str:
        """Return the samples as a Markdown table, one row per prompt."""
        names = list(self.samples[0].texts) if self.samples else []
        return markdown_table(["prompt", *names], [[sample.prompt, *sample.texts.values()] for sample in self.samples])


def summarise(
    policies: Mapping[str, PolicyGenerations],
    *,
    human: PolicyGenerations | None = None,
    compared: Mapping[str, Mapping[Pair, Compared]] | None = None,
    samples: Sequence[Sample] = (),
    seed: int = 0,
) -> Comparison:
    """Summarise every policy, and compare each with the first, prompt by prompt; `human` texts are summarised alike.

    Intervals are 95 % percentile intervals of resamples of the prompts, each drawn with all its answers. Every interval
    draws the same resamples, so that the numbers of one policy do not depend on which others are compared.

    Args:
        policies: in their order; the others are compared with the first.
        human: what people wrote.
        compared: by judge of pairs, what it said about each pair of policies.
        samples: shown beside the numbers.
        seed: of the resamples.

    Raises:
        ValueError: no policy, or policies that answered other prompts or were scored by other judges.
    """
    first_name = _checked(policies)
    first, names = policies[first_name], list(policies)
    lengths = {name: policy.lengths for name, policy in policies.items()}
    judges = {
        judge: verdicts_of_scores(
            {name: policy.scores[judge] for name, policy in policies.items()}, lengths, first.samples_per_prompt
        )
        for judge in first.scores
    }
    judges |= {judge: verdicts_of_pairs(said, lengths) for judge, said in (compared or {}).items()}
    people = None if human is None else replace(summary(human, judged_alone(human, seed), seed), ended=None)
    summaries = {
        name: summary(
            policy,
            {judge: judged(judge, policy, each, (name, first_name), seed) for judge, each in judges.items()},
            seed,
            median(human.fluency) if human else None,
        )
        for name, policy in policies.items()
    }
    told = {judge: each.preferences for judge, each in judges.items() if each.preferences}
    options = {"samples_per_prompt": first.samples_per_prompt}
    return Comparison(
        num_prompts=first.num_prompts,
        policies=summaries,
        human=people,
        samples=tuple(samples),
        **options,
        win_rates={judge: win_rate_matrix(names, each, seed=seed, **options) for judge, each in told.items()},
        rankings={
            judge: ranking(names, each, generator=np.random.default_rng(seed), **options)
            for judge, each in told.items()
            if len(names) > 2
        },
        audits=audits(judges),
        smallest_effect=smallest_effect(first.num_prompts) if judges else None,
        notes=tuple(_notes(summaries, judges, first_name)),
    )


def side_by_side(
    policies: Mapping[str, PolicyGenerations], human: PolicyGenerations | None, num_samples: int, seed: int
) -> list[Sample]:
    """Return the first text of every policy on at most `num_samples` prompts, drawn by the seed and not chosen.

    Human texts stand beside them if they answer the same prompts.
    """
    first = next(iter(policies.values()))
    prompts = list(first.prompts[:: first.samples_per_prompt])
    drawn = np.random.default_rng(seed).permutation(len(prompts))[:num_samples]
    shown = {name: policy.texts[:: policy.samples_per_prompt] for name, policy in policies.items()}
    if human is not None and list(human.prompts) == prompts:
        shown[HUMAN] = human.texts
    return [Sample(prompts[row], {name: texts[row] for name, texts in shown.items()}) for row in sorted(drawn)]


def _checked(policies: Mapping[str, PolicyGenerations]) -> str:
    """Return the name of the first policy.

    Raises:
        ValueError: there is none, or the policies cannot be compared.
    """
    if not policies:
        raise ValueError("a comparison needs at least one policy")
    first_name, first = next(iter(policies.items()))
    for name, policy in policies.items():
        if list(policy.prompts) != list(first.prompts) or policy.samples_per_prompt != first.samples_per_prompt:
            raise ValueError(f"{name} and {first_name} answered different prompts")
        if _judges_of(policy) != _judges_of(first):
            raise ValueError(f"{name} and {first_name} were not scored by the same judges")
    return first_name


def _judges_of(policy: PolicyGenerations) -> list[object]:
    return [list(policy.scores), policy.gold is None, policy.fluency is None]


def _notes(summaries: Mapping[str, PolicySummary], judges: Mapping[str, Verdicts], first: str) -> list[str]:
    """Return a line for each win rate that length explains in part, and for each judge that left out prompts."""
    notes = []
    for name, numbers in summaries.items():
        for judge, said in numbers.judges.items():
            rate, equal = said.win_rate, said.length_controlled
            if rate is not None and equal is not None and abs(rate.mean - equal.mean) > MATTERS:
                notes.append(
                    f"{name} against {first}, {judge_title(judge)}: {rate.mean:.1%} won, {equal.mean:.1%} at equal "
                    "length - the length of the answers explains a part"
                )
    for judge, verdicts in judges.items():
        unread = sum(each.num_unreadable for each in verdicts.asked)
        if unread:
            notes.append(f"{judge_title(judge)}: {unread} of its answers named no winner and count as ties")
        left = int((~verdicts.rows).sum())
        if left:
            notes.append(
                f"{judge_title(judge)}: {left} of {len(verdicts.rows)} answers of each policy left out, because it "
                "gave some answer to their prompts no score"
            )
    return notes
