"""The curves of a stage: which metrics, under which titles, with which events; several runs over each other."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.report.charts.curves import Chart
from rlhf.report.charts.line import Event, Line, band_of, line_of
from rlhf.report.reading.run import Run, Stage

TITLES = {
    "objective/scores": ("Score: mean of an episode", ""),
    "objective/rlhf_reward": ("Score with the KL penalty", ""),
    "objective/kl": ("KL to the reference", "nats per sequence"),
    "objective/kl_window": ("KL to the reference, mean of the last steps", "nats per sequence"),
    "objective/entropy": ("Entropy", "nats per token"),
    "val/response_length": ("Length of responses", "tokens"),
    "val/share_ended": ("Share of responses that end", ""),
    "val/explained_variance": ("Explained variance of the critic", ""),
    "policy/clipfrac_avg": ("Share of clipped tokens, policy", ""),
    "objective/scores_std": ("Spread of scores within a batch", ""),
    "loss/policy_avg": ("Policy loss", ""),
    "loss/value_avg": ("Value loss", ""),
    "loss": ("Loss", "nats"),
    "eval/loss": ("Held-out loss", "nats"),
    "accuracy": ("Share of pairs in the right order", ""),
    "eval/accuracy": ("Held-out share of pairs in the right order", ""),
    "margin": ("Lead of the chosen response", ""),
    "eval/margin": ("Held-out lead of the chosen response", ""),
    "eval/perplexity": ("Held-out perplexity", ""),
    "eval/calibration_error": ("Held-out calibration error", ""),
    "evaluation/scores": ("Score on held-out prompts", ""),
    "evaluation/kl": ("KL on held-out prompts", "nats per sequence"),
    "objective/kl_per_token": ("KL to the reference, by token", "nats per token"),
    "objective/kl_coef": ("KL coefficient", "per nat"),
    "policy/approxkl_avg": ("KL of the updates of a step", "nats per token"),
    "policy/entropy_avg": ("Exact entropy", "nats per token"),
    "val/clipfrac_avg": ("Share of clipped values", ""),
    "val/ratio_max": ("Largest ratio", ""),
    "val/first_ratio_deviation": ("Deviation of the first ratio from 1", ""),
    "lr/policy": ("Learning rate", ""),
    "lr/reward_model": ("Learning rate", ""),
    "lr/value": ("Learning rate of the critic", ""),
    "grad_norm/policy": ("Gradient norm, before clipping", ""),
    "grad_norm/reward_model": ("Gradient norm, before clipping", ""),
    "grad_norm/value": ("Gradient norm of the critic, before clipping", ""),
    "seconds": ("Time of a step", "seconds"),
    "profile/tokens_per_second": ("Throughput", "tokens per second"),
    "profile/peak_memory_gib": ("Peak memory", "GiB"),
}
"""Title and unit of a metric, in the order of the page; others follow under their own names."""
NUM_SHOWN = {"ppo": 9, "sft": 3, "reward_model": 4}
"""Charts of a stage that are open at once; the others are one step away."""
LEFT_OUT = ("step", "episode", "epoch", "weight", "best/step", "best/value", "rollback/count")
MOST_EVENTS = 12
STAGE_TITLES = {
    "sft": "Supervised finetuning",
    "reward_model": "Reward model",
    "ppo": "PPO",
    "evaluate": "Evaluation",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCurves:
    """The charts of one stage, over all runs that have it."""

    kind: str
    title: str
    shown: list[Chart]
    more: list[Chart]
    events: list[str]
    """What the vertical marks are."""


def stage_curves(runs: Sequence[Run], *, is_one_recipe: bool) -> list[StageCurves]:
    """Return the curves of every stage that any run has; for seeds of one recipe with a band."""
    found = []
    for kind in ("ppo", "reward_model", "sft"):
        stages = [(run.name, run.stages[kind]) for run in runs if kind in run.stages and run.stages[kind].metrics.rows]
        if not stages:
            continue
        events = stage_events(stages[0][1]) if len(stages) == 1 else []
        charts = [
            chart for name in _names([stage for _, stage in stages]) if (chart := _chart(name, kind, stages, events))
        ]
        if is_one_recipe:
            charts = [_with_band(chart, stages) for chart in charts]
        shown = NUM_SHOWN[kind]
        told = list(dict.fromkeys(event.label.partition(" at ")[0] for event in events))
        title = STAGE_TITLES[kind]
        found.append(StageCurves(kind=kind, title=title, shown=charts[:shown], more=charts[shown:], events=told))
    return found


def stage_events(stage: Stage) -> list[Event]:
    """Return what happened at single steps: a start again, a stop or rollback, the best step, an end, checkpoints."""
    events = [Event(step, f"resumed at step {step}") for step in stage.resumed]
    events += [Event(step, f"stopped by a guard at step {step}") for step, _ in stage.guarded]
    events += _course_events(stage)
    updates = stage.metrics.series("updates")
    if stage.config.get("target_kl") is not None and len(updates):
        due = int(stage.config.get("epochs", 0)) * int(stage.config.get("minibatches", 0)) or updates.values.max()
        short = [int(step) for step, number in zip(updates.steps, updates.values, strict=True) if number < due]
        events += [Event(step, f"epochs ended early by target_kl at step {step}") for step in short[:MOST_EVENTS]]
    events += [Event(step, f"checkpoint at step {step}") for step in stage.checkpoints[:MOST_EVENTS]]
    return events


def _course_events(stage: Stage) -> list[Event]:
    """Return where the run went back after a guard, which step was its best, and where it ended early."""
    counts, best = stage.metrics.series("rollback/count"), stage.metrics.series("best/step")
    rises = [float(number) > before for number, before in zip(counts.values, [0.0, *counts.values], strict=False)]
    back = [int(step) - 1 for step, rose in zip(counts.steps, rises, strict=True) if rose]
    events = [Event(step, f"went back after a guard at step {step}") for step in back[:MOST_EVENTS]]
    if len(best):
        metric = (stage.config.get("best") or {}).get("metric", "best.metric")
        events.append(Event(int(best.values[-1]), f"best {metric} at step {int(best.values[-1])}"))
    last, due = max((int(row["step"]) for row in stage.metrics.rows), default=0), stage.config.get("steps")
    if stage.is_complete and isinstance(due, int) and last < due:
        events.append(Event(last, f"ended early at step {last}"))
    return events


def chart_key(kind: str, metric: str) -> str:
    """Return the id of a metric's chart."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9]+', '-', metric).strip('-')}"


def _names(stages: Sequence[Stage]) -> list[str]:
    present = dict.fromkeys(name for stage in stages for name in stage.metrics.names if name not in LEFT_OUT)
    known = [name for name in TITLES if name in present]
    return [*known, *(name for name in present if name not in TITLES)]


def _chart(metric: str, kind: str, stages: Sequence[tuple[str, Stage]], events: Sequence[Event]) -> Chart | None:
    title, unit = TITLES.get(metric, (metric, ""))
    series = [(name, stage.metrics.series(metric)) for name, stage in stages]
    lines = [line_of(each, name if len(stages) > 1 else metric) for name, each in series if len(each)]
    if not any(len(line.x) > 1 for line in lines) and not metric.startswith("eval"):
        return None
    return Chart(key=chart_key(kind, metric), title=title, unit=unit, lines=lines, events=events)


def _with_band(chart: Chart, stages: Sequence[tuple[str, Stage]]) -> Chart:
    metric = next(
        name for name in _names([stage for _, stage in stages]) if chart_key(stages[0][1].kind, name) == chart.key
    )
    series = [each for _, stage in stages if len(each := stage.metrics.series(metric))]
    band = band_of(series, f"mean of {len(series)} runs")
    if band is None:
        return chart
    plain = [Line(label=line.label, x=line.x, y=line.y) for line in chart.lines]
    return Chart(key=chart.key, title=chart.title, unit=chart.unit, lines=[band, *plain], events=chart.events)
