"""The figure of a run: score, KL and win rate over the steps, as one SVG file with its own colours."""

import re
from importlib import resources

import numpy as np
from markupsafe import Markup

from rlhf.errors import ConfigError
from rlhf.report.charts.curves import HEIGHT, WIDTH, Chart
from rlhf.report.charts.line import Line, line_of
from rlhf.report.charts.svg import element
from rlhf.report.reading.run import Run
from rlhf.report.sections.comparison import JUDGES

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
    style = _panel_style()
    panels = [_panel(chart, place) for place, chart in enumerate(charts)]
    width = len(charts) * (WIDTH + GAP) - GAP
    told = " ".join(f"{chart.title}. {chart.description}" for chart in charts)
    whole = element(
        "svg",
        element("title", f"{run.name}: what became of the policy", id="t"),
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
    paths = run.evaluation.config.get("policies", {})
    last = run.ppo.metrics.steps[-1]
    policies = run.evaluation.comparison["policies"]
    first = next(iter(policies))
    lines: list[Line] = []
    for key, judge in JUDGES.items():
        rates = {
            float(_step_of(f"{paths.get(name, '')} {name}", last)): numbers[key]
            for name, numbers in policies.items()
            if numbers.get(key)
        }
        if rates:
            steps = [0.0, *sorted(rates)]
            half = {"mean": 0.5, "low": 0.5, "high": 0.5}
            mean, low, high = (np.array([half[end], *(rates[s][end] for s in sorted(rates))]) for end in half)
            x = np.array(steps) + len(lines) * 0.012 * last
            lines.append(Line(label=judge, x=x, y=mean, low=low, high=high, points_only=True))
    if not lines:
        return None
    title = f"Win rate against {first}: {' (blue), '.join(line.label for line in lines)}"
    title += " (orange)" if len(lines) > 1 else ""
    return Chart(key="rates", title=title, lines=lines, level=0.5)


def _panel(chart: Chart, place: int) -> Markup:
    x = place * (WIDTH + GAP)
    heading = element("text", chart.title, x=4.0, y=18.0, class_="label")
    body = element("g", *chart.body(), transform=f"translate(0 {TITLE_HEIGHT:g})")
    ground = element("rect", width=WIDTH, height=HEIGHT + TITLE_HEIGHT, rx=4.0, class_="ground")
    return element("g", ground, heading, body, transform=f"translate({x:g} 0)")


def _panel_style() -> str:
    """Return the colours and the rules of charts from the page's style sheet, and the ground of a panel."""
    sheet = resources.files(__package__).joinpath("templates", "page.css").read_text("utf-8")
    colours = sheet[: sheet.index("* {")]
    rules = [line for line in sheet.splitlines() if line.startswith((".chart ", ".s0", ".s3", ".solid", ".b0", ".b3"))]
    return "\n".join([colours.strip(), *rules, ".ground { fill: var(--panel); }"])


def _step_of(text: str, last: int) -> int:
    found = _STEP.search(text)
    return int(found.group(1)) if found else last
