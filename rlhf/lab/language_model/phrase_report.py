"""The report on the hidden phrase: success rates with intervals, a table, a figure, and the finding."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlhf.lab.estimate import Estimate
from rlhf.lab.language_model.phrase_task import Task
from rlhf.lab.section import Curve, Figure, Settings, Table

WINDOW = 4
"""PPO steps that a point of a curve averages."""
SOLVED = 0.5
"""Success rate from which the task counts as solved."""
Z = 1.959964
"""Two-sided 95 % of the normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one run did."""

    at_prompts: list[tuple[int, int]]
    """At each step: episodes that began at their prompts, and how many of these found the phrase."""
    num_decoded: int
    """Tokens sampled in training."""
    num_judged: int
    """Responses to the prompts that were judged after the last step."""
    num_solved: int
    """How many of these contain the phrase."""
    probability: float
    """Probability that a response begins with the phrase, before the first step."""


def wilson(num_solved: int, num: int) -> Estimate:
    """Return a share with its 95 % score interval, which is also valid when the share is 0 or 1.

    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    Raises:
        ValueError: `num` is below 1, or `num_solved` is not between 0 and `num`.
    """
    if num < 1 or not 0 <= num_solved <= num:
        raise ValueError(f"expected 0 <= successes <= number and a number of at least 1, found {num_solved} of {num}")
    share, factor = num_solved / num, 1 + Z**2 / num
    centre = (share + Z**2 / (2 * num)) / factor
    half = Z / factor * math.sqrt(share * (1 - share) / num + Z**2 / (4 * num**2))
    return Estimate(value=share, low=max(0.0, centre - half), high=min(1.0, centre + half))


def table(runs: Mapping[str, Sequence[Outcome]], task: Task) -> Table:
    """Return one row per arm."""
    return Table(
        header=["run", "P(phrase) at the start", "success after the last step", "each seed", "episodes to 50 %",
                "tokens sampled"],
        rows=[
            [
                name,
                f"{sum(run.probability for run in outcomes) / len(outcomes):.1e}",
                f"{_final(outcomes):.1%}",
                ", ".join(f"{run.num_solved / run.num_judged:.0%}" for run in outcomes),
                ", ".join(_episodes_to_half(run, task) for run in outcomes),
                f"{sum(run.num_decoded for run in outcomes) / len(outcomes):,.0f}",
            ]
            for name, outcomes in runs.items()
        ],
    )  # fmt: skip


def figure(runs: Mapping[str, Sequence[Outcome]], task: Task) -> Figure:
    """Return the success of the episodes that began at their prompts, over the training episodes so far."""
    return Figure(
        name="hidden_phrase",
        title=f"Finding the hidden phrase ({task.batch * task.steps} episodes per run)",
        x_label="episodes so far, those inside demonstrations included",
        y_label="success of episodes from the prompts",
        curves=[_curve(name, outcomes, task) for name, outcomes in runs.items()],
    )


def finding(runs: Mapping[str, Sequence[Outcome]], task: Task) -> str:
    """Say how many seeds each arm solves, and what the statement expects."""
    rates = {name: _final(outcomes) for name, outcomes in runs.items()}
    words = "; ".join(f"{name}: {rate:.1%}" for name, rate in rates.items())
    verdicts = "; ".join(f"{name} {_verdict(outcomes)}" for name, outcomes in runs.items())
    seeds = len(next(iter(runs.values())))
    return (
        f"Success from the plain prompts after {task.batch * task.steps} episodes, over {seeds} seed(s): {words}. "
        f"A seed is solved when more than {SOLVED:.0%} of its responses hold the phrase: {verdicts}. The statement "
        "expects none of the first and all of the others."
    )


def _verdict(outcomes: Sequence[Outcome]) -> str:
    solved = sum(run.num_solved / run.num_judged > SOLVED for run in outcomes)
    return f"solves {solved} of {len(outcomes)}"


def method(settings: Settings, task: Task, runs: Mapping[str, Sequence[Outcome]]) -> str:
    """Say what is measured, what was decided beforehand, and what was tuned."""
    probability = next(iter(runs.values()))[0].probability
    return (
        f"{settings.model} is to say '{task.phrase}' somewhere in at most {task.max_new_tokens} tokens after "
        f"one of {len(task.prompts)} prompts such as '{task.prompts[0]}': score 1 if it does (the response then ends), "
        "else 0. The phrase was chosen before any run, by a rule: after the text before it, each word is the second "
        "most likely one, so every step is within reach but the whole is not. The base begins a response with it "
        f"with probability {probability:.1e}, mean over the prompts: {probability * task.batch * task.steps:.1e} hits "
        f"expected in the budget of {task.batch * task.steps} episodes ({task.steps} PPO steps of {task.batch}, 2 "
        "epochs of 4 minibatches, KL coefficient 0.005), which is the same for all. There is one demonstration for "
        f"each prompt, which is the phrase. Cloning: {task.cloning_steps} optimizer steps on them, then PPO. Resets: "
        "half of the episodes begin inside a demonstration, every cut from one token on equally often, and the policy "
        f"always samples at least the last token. The last {task.num_layers} blocks are trained. Curves: success of "
        f"the training episodes that began at their prompts, the mean of {WINDOW} steps and {task.seeds} seed(s); the "
        f"table: {task.num_judged} responses per seed, sampled from the plain prompts after the last step, whatever "
        "the run. Intervals: 95 %, Wilson, over responses; they ignore differences between seeds. Layers, epochs and "
        "lengths were cut to fit the time, after two steps of a larger setting; annealed cuts were tried once and "
        "dropped: they solved the task with one seed of two, as uniform ones did."
    )


def _final(outcomes: Sequence[Outcome]) -> Estimate:
    return wilson(sum(run.num_solved for run in outcomes), sum(run.num_judged for run in outcomes))


def _episodes_to_half(run: Outcome, task: Task) -> str:
    """Return the number of episodes before the first window of steps that reaches the rate of a solved task."""
    for start in range(0, len(run.at_prompts), WINDOW):
        num, found = (sum(each[which] for each in run.at_prompts[start : start + WINDOW]) for which in (0, 1))
        if num and found / num >= SOLVED:
            return str(start * task.batch)
    return "never"


def _curve(name: str, outcomes: Sequence[Outcome], task: Task) -> Curve:
    """Return the rates of all seeds together, one point per window, at its middle."""
    x, rates = [], []
    for start in range(0, task.steps, WINDOW):
        window = [each for run in outcomes for each in run.at_prompts[start : start + WINDOW]]
        if not any(num for num, _ in window):
            continue
        width = min(WINDOW, task.steps - start)
        x.append(task.batch * (start + (width - 1) / 2))
        rates.append(wilson(sum(found for _, found in window), sum(num for num, _ in window)))
    return Curve.through(name, x, rates)
