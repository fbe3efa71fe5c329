"""Answers side by side, before and after, and the answers to one prompt over the steps of a run."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf.report.reading.run import Run, independent_first, trained_policies
from rlhf.report.reading.samples import Answer

EACH = 12
"""Cards of each kind: best, worst, random, disputed."""
PROMPTS, VERSIONS = 12, 12
"""Prompts that are followed, and answers to each."""
MOST_CHARACTERS = 2000
"""Of a text on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One answer as a card shows it."""

    label: str
    text: str
    facts: str
    """Score, KL, length, end, on one line."""


@dataclass(slots=True, kw_only=True)
class Card:
    """One prompt with its answers before and after."""

    prompt: str
    versions: list[Version]
    gain: float | None
    """How much better the later answer scores; of one answer alone, its score."""
    kl: float | None
    length: int
    dispute: float | None = None
    """How far apart the judges' gains are, in standard deviations."""
    kinds: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The cards of a run."""

    run: str
    source: str
    """Where the answers come from, and how many there were."""
    cards: list[Card]
    kinds: list[str]
    lacking: str
    """What cannot be shown, and why; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """The answers to one prompt over the steps."""

    prompt: str
    versions: list[Version]


def cards_of(run: Run) -> Cards | None:
    """Return the most telling answers: of the evaluation where there are any, else of PPO's samples."""
    stage = run.evaluation
    policies = [] if stage is None else [name for name in trained_policies(stage.comparison) if stage.answers.get(name)]
    if stage is not None and len(policies) >= 2:
        first, last = policies[0], policies[-1]
        pairs = list(zip(stage.answers[first], stage.answers[last], strict=False))
        cards = [_pair(before, after, (first, last)) for before, after in pairs if before.prompt == after.prompt]
        return _chosen(run.name, f"{len(cards)} held-out prompts, {first} and {last}", cards)
    samples = [] if run.ppo is None else run.ppo.samples
    if not samples:
        return None
    return _chosen(run.name, f"{len(samples)} samples of training", _of_samples(samples))


def followed_of(run: Run) -> list[Followed]:
    """Return the prompts that were sampled at the most steps, each with its answers in order."""
    by_prompt: dict[str, dict[int, Answer]] = {}
    for answer in [] if run.ppo is None else run.ppo.samples:
        by_prompt.setdefault(answer.prompt, {}).setdefault(answer.step or 0, answer)
    several = sorted((each for each in by_prompt.items() if len(each[1]) > 1), key=lambda each: -len(each[1]))
    found = []
    for prompt, answers in several[:PROMPTS]:
        steps = sorted(answers)
        places = np.unique(np.linspace(0, len(steps) - 1, VERSIONS).round().astype(int)).tolist()
        versions = [_version(f"step {steps[place]}", answers[steps[place]]) for place in places]
        found.append(Followed(prompt=clipped(prompt), versions=versions))
    return found


def clipped(text: str) -> str:
    """Return a text of bounded length that says how much is missing."""
    left = len(text) - MOST_CHARACTERS
    return text if left <= 0 else f"{text[:MOST_CHARACTERS]} [... {left} more characters]"


def _pair(before: Answer, after: Answer, labels: tuple[str, str]) -> Card:
    shared = [judge for judge in after.scores if judge in before.scores]
    gains = {judge: after.scores[judge] - before.scores[judge] for judge in shared}
    judges = independent_first(gains)
    card = Card(
        prompt=clipped(after.prompt),
        versions=[_version(label, answer) for label, answer in zip(labels, (before, after), strict=True)],
        gain=gains[judges[0]] if judges else None,
        kl=after.kl,
        length=after.length,
    )
    card.dispute = gains[judges[0]] - gains[judges[-1]] if len(judges) > 1 else None
    return card


def _of_samples(samples: Sequence[Answer]) -> list[Card]:
    """Return the last answer to each prompt, beside the first one where it was sampled before."""
    first: dict[str, Answer] = {}
    last: dict[str, Answer] = {}
    for answer in samples:
        first.setdefault(answer.prompt, answer)
        last[answer.prompt] = answer
    late = sorted(last.values(), key=lambda answer: answer.step or 0)[-max(4 * EACH, len(last) // 4) :]
    cards = []
    for after in late:
        before = first[after.prompt]
        if before.step != after.step:
            cards.append(_pair(before, after, (f"step {before.step}", f"step {after.step}")))
        else:
            version = _version(f"step {after.step}", after)
            card = Card(
                prompt=clipped(after.prompt), versions=[version], gain=after.score, kl=after.kl, length=after.length
            )
            cards.append(card)
    return cards


def _chosen(run: str, source: str, cards: list[Card]) -> Cards:
    scored = sorted((card for card in cards if card.gain is not None), key=lambda card: _known(card.gain))
    disputed = sorted((card for card in cards if card.dispute is not None), key=lambda card: -abs(_known(card.dispute)))
    # The same page for the same files: drawn with a fixed seed.
    drawn = random.Random(0).sample(cards, min(EACH, len(cards)))  # noqa: S311 - not for secrets
    number = min(EACH, (len(scored) + 1) // 2)  # of few cards none is both
    kinds = {"best": scored[::-1][:number], "worst": scored[:number], "random": drawn, "disputed": disputed[:EACH]}
    for kind, members in kinds.items():
        for card in members:
            card.kinds.append(kind)
    lacking = []
    if not scored:
        lacking.append("no scores were written with the answers, so best and worst are not known")
    if not disputed:
        lacking.append("most disputed needs the scores of two judges")
    kept = [card for card in [*scored[::-1], *(card for card in cards if card.gain is None)] if card.kinds]
    return Cards(
        run=run,
        source=source,
        cards=kept,
        kinds=[kind for kind, members in kinds.items() if members],
        lacking="; ".join(lacking),
    )


def _version(label: str, answer: Answer) -> Version:
    facts = [f"{judge} {score:.3g}" for judge, score in answer.scores.items()]
    facts += [f"KL {answer.kl:.3g} nats"] if answer.kl is not None else []
    facts += [f"{answer.tokens} tokens"] if answer.tokens is not None else []
    facts += [] if answer.ended is None else ["ended" if answer.ended else "not ended"]
    return Version(label=label, text=clipped(answer.response), facts=", ".join(facts))


def _known(value: float | None) -> float:
    return 0.0 if value is None else value
