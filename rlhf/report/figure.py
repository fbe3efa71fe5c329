"""The figure of a run: score, KL and win rate over the steps, as one SVG file with its own colours."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources

import numpy as np
from markupsafe import Markup

from rlhf.errors import ConfigError
from rlhf.report.charts.curves import HEIGHT, WIDTH, Chart
from rlhf.report.charts.line import Line, line_of
from rlhf.report.charts.svg import element
from rlhf.report.reading.run import Run, judge_name, trained_policies, win_rates_of

PANELS = (("objective/scores", "Score"), ("objective/kl", "KL to the reference, nats per sequence"))
TITLE_HEIGHT, GAP = 28.0, 16.0
_STEP = re.compile(r"step-0*(\d+)(?:\D|\Z)")


def figure_svg(run: Run) -> str:
    """Return the figure; readable on light and on dark, with a title and a description.

    Raises:
        ConfigError: the run has no PPO stage with two steps.
    """
    if run.ppo is None or len(run.ppo.metrics.rows) < 2:
        raise ConfigError(f"{run.path}: the figure needs a PPO stage with two steps or more")
    series = [(run.ppo.metrics.series(metric), title) for metric, title in PANELS]
    charts = [
        Chart(key=f"f{place}", title=title, lines=[line_of(each, title)])
        for place, (each, title) in enumerate(series)
        if len(each)
    ]
    rates = win_rate_chart(run)
    charts += [] if rates is None else [rates]
    return drawn_beside(f"{run.name}: what became of the policy", charts)


def drawn_beside(title: str, charts: Sequence[Chart]) -> str:
    """Return charts beside each other as one SVG file with its own colours, readable on light and on dark."""
    style = _panel_style()
    panels = [_panel(chart, place) for place, chart in enumerate(charts)]
    width = len(charts) * (WIDTH + GAP) - GAP
    told = " ".join(f"{chart.title}. {chart.description}" for chart in charts)
    whole = element(
        "svg",
        element("title", title, id="t"),
        element("desc", told, id="d"),
        Markup(f"<style>{style}</style>"),  # noqa: S704 - our own file
        *panels,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {HEIGHT + TITLE_HEIGHT:g}",
        width=width,
        height=HEIGHT + TITLE_HEIGHT,
        class_="chart",
        role="img",
        aria_labelledby="t d",
    )
    return f"{whole}\n"


def win_rate_chart(run: Run) -> Chart | None:
    """Return the win rates with their intervals at the steps of their policies: 50% at step 0, by what it means.

    A policy is at the step that its path or name holds as `step-000020`, else at the last step.
    """
    if run.evaluation is None or run.ppo is None:
        return None
    last = run.ppo.metrics.steps[-1]
    policies = trained_policies(run.evaluation.comparison)
    paths = run.evaluation.config.get("policies", {})
    steps = {name: _step_of(f"{paths.get(name, '')} {name}", last) for name in policies}
    judges = dict.fromkeys(judge for numbers in policies.values() for judge in win_rates_of(numbers))
    lines = []
    for place, judge in enumerate(judges):
        by_name = {name: win_rates_of(numbers).get(judge) for name, numbers in policies.items()}
        rates = sorted(((steps[name], rate) for name, rate in by_name.items() if rate), key=lambda each: each[0])
        # Judges stand a little beside each other, so that every interval is seen.
        lines.append(_judged(judge_name(judge), rates, shift=0.012 * last * place))
    if not lines:
        return None
    return Chart(key="rates", title=f"Win rate against {next(iter(policies))}", lines=lines, level=0.5)


def _judged(label: str, rates: Sequence[tuple[int, Mapping[str, float]]], shift: float) -> Line:
    mean, low, high = (np.array([0.5, *(rate[end] for _, rate in rates)]) for end in ("mean", "low", "high"))
    x = np.array([0.0, *(step for step, _ in rates)]) + shift
    return Line(label=label, x=x, y=mean, low=low, high=high, points_only=True)


def _panel(chart: Chart, place: int) -> Markup:
    x = place * (WIDTH + GAP)
    heading = element("text", chart.title, x=4.0, y=18.0, class_="label")
    body = element("g", *chart.body(), transform=f"translate(0 {TITLE_HEIGHT:g})")
    ground = element("rect", width=WIDTH, height=HEIGHT + TITLE_HEIGHT, rx=4.0, class_="ground")
    return element("g", ground, heading, body, *_legend(chart), transform=f"translate({x:g} 0)")


def _legend(chart: Chart) -> list[Markup]:
    """Return a dot and a name for each of several lines, in the middle of the chart, where rates leave room."""
    named = [line for line in chart.lines if line.colour is None or line.points_only]  # not a curve through its points
    if len(named) < 2:
        return []
    parts = []
    for place, line in enumerate(named):
        y = TITLE_HEIGHT + HEIGHT / 2 - 30.0 + 20.0 * place
        colour = place if line.colour is None else line.colour
        parts.append(element("circle", cx=150.0, cy=y - 4.0, r=4.0, class_=f"d{colour}"))
        parts.append(element("text", line.label, x=160.0, y=y))
    return parts


def _panel_style() -> str:
    """Return the colours and the rules of charts from the page's style sheet, and the ground of a panel."""
    sheet = resources.files(__package__).joinpath("templates", "page.css").read_text("utf-8")
    colours = sheet[: sheet.index("* {")]
    rules = [line for line in sheet.splitlines() if line.startswith((".chart ", ".s0", ".s3", ".solid", ".b0", ".b3"))]
    return "\n".join([colours.strip(), *rules, ".ground { fill: var(--panel); }"])


def _step_of(text: str, last: int) -> int:
    found = _STEP.search(text)
    return int(found.group(1)) if found else last
