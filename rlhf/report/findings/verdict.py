"""The verdict on a run, in words: better or not, by how much, at what KL."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlhf.report.findings.finding import Finding
from rlhf.report.findings.signs import MIN_STEPS, course, from_to, ppo_series, score_gain
from rlhf.report.reading.run import PROXY, Run, judge_name, shown_rate, trained_policies, win_rates_of

Tone = Literal["good", "bad", "unclear"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of the policy."""

    tone: Tone
    headline: str
    evidence: list[str]
    """Sentences with numbers."""


def verdict(run: Run, findings: Sequence[Finding]) -> Verdict:
    """Say whether the policy improved; an evaluation counts more than the training curve."""
    number = sum(found.state == "warning" for found in findings)
    compared = _of_evaluation(run)
    made = compared or _of_curve(run)
    sentences = [*made.evidence]
    if compared is not None and run.ppo is not None:
        sentences += _of_curve(run).evidence
    if findings:
        sentences.append(_counted(number, sum(found.state == "skipped" for found in findings), len(findings)))
    tone = "unclear" if made.tone == "good" and number else made.tone
    headline = f"{made.headline}, with {_warnings(number)}" if number else made.headline
    return Verdict(tone=tone, headline=headline, evidence=sentences)


def _of_evaluation(run: Run) -> Verdict | None:
    if run.evaluation is None:
        return None
    comparison = run.evaluation.comparison
    policies = list(trained_policies(comparison).items())
    (first, _), (name, last) = policies[0], policies[-1]
    rates = win_rates_of(last)
    if len(policies) < 2 or not rates:
        return None
    judge, rate = next(iter(rates.items()))
    is_independent = judge != PROXY
    words: tuple[Tone, str] = ("unclear", "No difference shown")
    if rate["low"] > 0.5:
        words = ("good", "Better") if is_independent else ("unclear", "Scores higher; no independent judge looked")
    elif rate["high"] < 0.5:
        words = ("bad", "Worse")
    told = [
        f"{name} wins {shown_rate(each)} of {comparison.get('num_prompts', '?')} held-out prompts against {first}, "
        f"says the {judge_name(by)}{'' if by != PROXY else ' that training used'}."
        for by, each in rates.items()
    ]
    if last.get("kl"):
        told.append(f"{name} is {last['kl']['mean']:.3g} nats per sequence from the reference.")
    if not is_independent:
        told.append("Only the reward that was trained on judged: whether people would agree is not known.")
    return Verdict(tone=words[0], headline=words[1], evidence=told)


def _of_curve(run: Run) -> Verdict:
    scores = ppo_series(run, "objective/scores")
    if len(scores) < MIN_STEPS:
        found = f"{len(scores)} steps with a score, {MIN_STEPS} needed" if run.ppo is not None else "no PPO stage here"
        return Verdict(tone="unclear", headline="No verdict", evidence=[f"There is too little to judge by: {found}."])
    gain, error = score_gain(run)
    kl = ppo_series(run, "objective/kl")
    at = f", at a KL of {course(kl).end:.3g} nats per sequence" if len(kl) else ""
    told = (
        f"The training score went {from_to(course(scores))} over {len(scores)} steps ({gain:+.3g}, "
        f"standard error {error:.2g}){at}."
    )
    words: tuple[Tone, str] = ("unclear", "The score did not move beyond its noise")
    if gain > 2 * error:
        words = ("unclear", "The training score rose; no evaluation looked")
    elif gain < -2 * error:
        words = ("bad", "The training score fell")
    return Verdict(tone=words[0], headline=words[1], evidence=[told])


def _counted(warnings: int, skipped: int, total: int) -> str:
    looked = total - skipped
    missing = f"; {skipped} lacked their data" if skipped else ""
    return f"{looked} of {total} detectors looked: {_warnings(warnings)}{missing}."


def _warnings(number: int) -> str:
    return "no warning" if number == 0 else "1 warning" if number == 1 else f"{number} warnings"
