"""What ran: settings, machine, versions, data, time and memory of each stage."""

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf.report.reading.run import Run, Stage
from rlhf.report.sections.curves import STAGE_TITLES
from rlhf.report.sections.settings import Setting, flat, set_by_user


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRan:
    """What one stage did."""

    title: str
    state: str
    settings: list[Setting]
    facts: list[tuple[str, str]]
    """Machine, versions, data."""
    times: list[tuple[str, str]]
    phases: list[list[str]]
    """Phase, seconds, share; empty without `--profile`."""
    bad_rows: list[str]
    """Steps with numbers that were not finite."""


def what_ran(run: Run) -> list[StageRan]:
    """Return what every stage of a run did."""
    return [_ran(stage) for stage in run.stages.values()]


def _ran(stage: Stage) -> StageRan:
    bad = stage.metrics.not_finite()
    return StageRan(
        title=STAGE_TITLES[stage.kind],
        state="complete" if stage.is_complete else "not complete: it still runs, or it was stopped",
        settings=set_by_user(stage),
        facts=_facts(stage),
        times=_times(stage),
        phases=_phases(stage),
        bad_rows=[f"step {step}: {', '.join(names)}" for step, names in list(bad.items())[:20]],
    )


def _facts(stage: Stage) -> list[tuple[str, str]]:
    facts = [(name, _told(value)) for name, value in stage.circumstances.items() if name not in ("starts", "stops")]
    resumed = [f"after step {step}" for step in stage.resumed]
    stops = [("stopped by a guard", f"after step {step}: {reason}") for step, reason in stage.guarded]
    return [*facts, *([("resumed", ", ".join(resumed))] if resumed else []), *stops]


def _times(stage: Stage) -> list[tuple[str, str]]:
    seconds = stage.metrics.series("seconds")
    if not len(seconds):
        return []
    total, middle = float(seconds.values.sum()), sorted(seconds.values.tolist())[len(seconds) // 2]
    times = [
        ("steps", str(int(seconds.steps[-1]))),
        ("time in steps", duration(total)),
        ("median step", duration(middle)),
    ]
    for name, label in (("peak_memory_gib", "peak memory, GiB"), ("tokens_per_second", "tokens per second")):
        value = stage.profile.get(name)
        if isinstance(value, int | float):
            times.append((label, f"{value:,.4g}"))
    return times


def _phases(stage: Stage) -> list[list[str]]:
    phases = stage.profile.get("phases")
    if not isinstance(phases, Mapping):
        return []
    return [[name, f"{phase['seconds']:.2f}", f"{phase['share']:.1%}"] for name, phase in phases.items()]


def duration(seconds: float) -> str:
    """Return a time in words: `0.11 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _told(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each}" for name, each in flat(value).items())
    if isinstance(value, list):
        return "; ".join(_told(each) for each in value)
    return str(value)
