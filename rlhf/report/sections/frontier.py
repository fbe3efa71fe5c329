"""Over-optimisation: the gain by proxy and by gold against the distance from the start, with the fitted laws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.report.charts.curves import Chart
from rlhf.report.charts.line import Line
from rlhf.report.reading.frontier import Estimate, Frontier, Judge, Kind, Point
from rlhf.report.reading.run import Run, judge_name
from rlhf.report.sections.answers import Version, clipped

TITLES: dict[Kind, str] = {"ppo": "PPO", "best_of": "Best of n"}
COLOURS: dict[Judge, int] = {"gold": 0, "proxy": 3}
SMOOTH = 60
"""Points of a fitted curve."""
HEADER = ["policy", "KL, nats", "sqrt(KL)", "gold gain", "proxy gain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierSection:
    """What the page shows of one frontier."""

    run: str
    source: str
    """The directory of its files, within the run."""
    best: str
    charts: list[Chart]
    about: str
    laws: list[str]
    header: list[str]
    rows: list[list[str]]
    disputed: list[tuple[str, Version]]
    """Prompt and answer."""


def frontier_sections(run: Run, key: str) -> list[FrontierSection]:
    """Return what the page shows of the frontiers of a run; `key` tells its charts from those of other runs."""
    return [
        FrontierSection(
            run=run.name,
            source=source,
            best=found.best,
            charts=charts_of(found, f"{key}-{place}-"),
            about=about(found),
            laws=laws_told(found),
            header=HEADER,
            rows=[[*row[:1], *(f"{number:.3g}" for number in row[1:3]), *row[3:]] for row in rows_of(found)],
            disputed=[
                (
                    clipped(each.prompt),
                    Version(
                        label=each.policy,
                        text=clipped(each.response),
                        facts=f"proxy {each.proxy:+.3g}, gold {each.gold:+.3g}",
                    ),
                )
                for each in found.disputed
            ],
        )
        for place, (source, found) in enumerate(run.frontiers.items())
    ]


def charts_of(found: Frontier, key: str = "") -> list[Chart]:
    """Return a chart of the gain against sqrt(KL) for PPO, and one for the best of n: points and fitted laws."""
    return [_chart(found, kind, key) for kind in TITLES if any(point.kind == kind for point in found.points)]


def about(found: Frontier) -> str:
    """Return what the numbers are."""
    gold = "" if found.gold_judge == "gold" else f"; gold is the {judge_name(found.gold_judge)}"
    return (
        f"Gains are in standard deviations of the start's scores, on {found.num_prompts} prompts{gold}. The KL of a "
        "best of n is its upper bound."
    )


def laws_told(found: Frontier) -> list[str]:
    """Return each fitted law with its intervals, and where it turns."""
    lines = []
    for kind, title in TITLES.items():
        farthest = max((point.kl for point in found.points if point.kind == kind), default=0.0)
        for judge, law in found.laws.get(kind, {}).items():
            if law is None:
                lines.append(f"{title}, {judge}: too few points for a fit.")
                continue
            term = "d" if kind == "best_of" else "log d"
            lines.append(
                f"{title}, {judge}: gain = d (alpha - beta {term}), alpha {law.alpha.shown}, beta {law.beta.shown}; "
                f"the fit {_turn(law.turnover_kl, farthest)}."
            )
    return lines


def _turn(kl: float | None, farthest: float) -> str:
    if kl is None:
        return "never turns"
    return f"is highest at a KL of {kl:.3g} nats" if kl <= farthest else "turns only beyond what was measured"


def rows_of(found: Frontier) -> list[tuple[str, float, float, str, str]]:
    """Return a row for each point: its name, KL, distance, and both gains with their intervals."""
    return [(each.name, each.kl, each.distance, each.gold.shown, each.proxy.shown) for each in found.points]


def _chart(found: Frontier, kind: Kind, key: str) -> Chart:
    points = sorted((point for point in found.points if point.kind == kind), key=lambda point: point.kl)
    distances = [point.distance for point in points]
    smooth = np.union1d(np.linspace(0.0, distances[-1], SMOOTH), distances)
    lines = []
    for judge, colour in COLOURS.items():
        lines.append(_points(points, judge, colour))
        law = found.laws.get(kind, {}).get(judge)
        if law is not None:
            lines.append(Line(label=f"{judge}, fitted", x=smooth, y=law.gain(smooth), colour=colour))
    title = f"{TITLES[kind]}: gain over the start"
    unit = "standard deviations"
    return Chart(key=f"{key}{kind}", title=title, lines=lines, unit=unit, x_label="sqrt(KL in nats)", level=0.0)


def _points(points: Sequence[Point], judge: Judge, colour: int) -> Line:
    """Return the gains by one judge, with the start, whose gain is 0, before them."""
    gains: list[Estimate] = [getattr(point, judge) for point in points]
    mean, low, high = (np.array([0.0, *(getattr(gain, end) for gain in gains)]) for end in ("mean", "low", "high"))
    x = np.array([0.0, *(point.distance for point in points)])
    return Line(label=judge, x=x, y=mean, low=low, high=high, points_only=True, colour=colour)
