"""The page: what every section shows, filled into the templates as one HTML file that loads nothing."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rlhf.printable import visible
from rlhf.report.findings.detectors import findings
from rlhf.report.findings.finding import Finding
from rlhf.report.findings.verdict import Verdict, verdict
from rlhf.report.reading.run import Run
from rlhf.report.sections.answers import Cards, Followed, cards_of, followed_of
from rlhf.report.sections.comparison import ComparisonSection, comparison_section
from rlhf.report.sections.curves import StageCurves, chart_key, stage_curves
from rlhf.report.sections.frontier import FrontierSection, frontier_sections
from rlhf.report.sections.heat import Episode, episodes_of
from rlhf.report.sections.settings import differences, is_one_recipe
from rlhf.report.sections.what_ran import StageRan, what_ran

CONTENTS = (
    ("verdict", "Verdict"),
    ("differences", "Settings that differ"),
    ("comparison", "Comparison"),
    ("frontier", "Over-optimisation"),
    ("curves", "Curves"),
    ("answers", "Answers"),
    ("followed", "Prompts followed"),
    ("tokens", "Tokens"),
    ("what-ran", "What ran"),
)
"""Anchors and names of the sections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """What the page shows of one run alone."""

    name: str
    verdict: Verdict
    warnings: list[Finding]
    others: list[Finding]
    places: dict[str, str]
    """The anchor of each detector's evidence; empty where the page has none."""
    ran: list[StageRan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that the templates print."""

    title: str
    paths: list[str]
    names: list[str]
    contents: list[tuple[str, str]]
    runs: list[RunPart]
    is_one_recipe: bool
    differences: list[list[str]]
    comparisons: list[ComparisonSection]
    frontiers: list[FrontierSection]
    curves: list[StageCurves]
    cards: list[Cards]
    followed: list[tuple[str, list[Followed]]]
    episodes: list[tuple[str, list[Episode]]]


def html(runs: Sequence[Run], *, version: str = "") -> str:
    """Return the page of one run, or of several side by side; with a version it follows them (`rlhf watch`)."""
    style, script = _ours(is_watched=bool(version))
    template = _environment().get_template("page.html.j2")
    policy = content_policy(style, script, is_watched=bool(version))
    return template.render(page=page_of(runs), policy=policy, version=version, style=style, script=script)


def waiting_html(problem: str, paths: Sequence[str], *, version: str) -> str:
    """Return the page that stands in for runs that cannot be shown yet, and why."""
    style, script = _ours(is_watched=True)
    policy = content_policy(style, script, is_watched=True)
    template = _environment().get_template("waiting.html.j2")
    return template.render(problem=problem, paths=paths, policy=policy, version=version, style=style, script=script)


def policy_of(*, is_watched: bool) -> str:
    """Return the Content-Security-Policy of every page."""
    return content_policy(*_ours(is_watched=is_watched), is_watched=is_watched)


def content_policy(style: str, script: str, *, is_watched: bool = False) -> str:
    """Return a Content-Security-Policy that allows one style sheet and one script, by their hashes, and no network.

    A watched page may ask the server it came from, and no other.
    """
    own = "connect-src 'self'; " if is_watched else ""
    return (
        f"default-src 'none'; style-src 'sha256-{_hash(style)}'; script-src 'sha256-{_hash(script)}'; {own}"
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _ours(*, is_watched: bool) -> tuple[Markup, Markup]:
    """Return style sheet and script."""
    names = ("page.css", "page.js", *(["watch.js"] if is_watched else []))
    style, *scripts = (resources.files(__package__).joinpath("templates", name).read_text("utf-8") for name in names)
    return Markup(style), Markup("".join(scripts))  # noqa: S704 - our own files; the policy lets nothing else run


def _environment() -> Environment:
    # Whatever a run wrote is text: `finalize` shows control characters, then autoescape escapes.
    environment = Environment(
        loader=PackageLoader("rlhf.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _with_code
    return environment


def page_of(runs: Sequence[Run]) -> Page:
    """Return what the page shows."""
    runs = _named_apart(runs)
    one_recipe = is_one_recipe(runs)
    curves = stage_curves(runs, is_one_recipe=one_recipe)
    anchors = {chart.key for stage in curves for chart in [*stage.shown, *stage.more]}
    names = [run.name for run in runs]
    contents = [each for each in CONTENTS if each[0] != "differences" or len(runs) > 1]
    return Page(
        title=f"Report of {' and '.join(names) if len(names) < 3 else f'{names[0]} and {len(names) - 1} more runs'}",
        paths=[str(run.path) for run in runs],
        names=names,
        contents=contents,
        runs=[_part(run, anchors | {anchor for anchor, _ in contents}) for run in runs],
        is_one_recipe=one_recipe,
        differences=[[key, *values] for key, values in differences(runs)] if len(runs) > 1 else [],
        comparisons=[each for place, run in enumerate(runs) if (each := comparison_section(run, f"r{place}"))],
        frontiers=[each for place, run in enumerate(runs) for each in frontier_sections(run, f"r{place}-frontier")],
        curves=curves,
        cards=[cards for run in runs if (cards := cards_of(run))],
        followed=[(run.name, prompts) for run in runs if (prompts := followed_of(run))],
        episodes=[(run.name, episodes) for run in runs if (episodes := episodes_of(run))],
    )


def _part(run: Run, anchors: set[str]) -> RunPart:
    found = findings(run)
    places = {each.detector.key: each.detector.chart for each in found}
    places = {key: chart_key("ppo", chart) if "/" in chart else chart for key, chart in places.items()}
    return RunPart(
        name=run.name,
        verdict=verdict(run, found),
        warnings=[each for each in found if each.state == "warning"],
        others=[each for each in found if each.state != "warning"],
        places={key: place if place in anchors else "" for key, place in places.items()},
        ran=what_ran(run),
    )


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Return the runs under names that differ: where two directories have one name, with the directory above."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return list(runs)
    longer = ["/".join(run.path.parts[-2:]) for run in runs]
    if len(set(longer)) < len(longer):
        longer = [f"{name} ({place})" for place, name in enumerate(longer, start=1)]
    return [replace(run, name=name) for name, run in zip(longer, runs, strict=True)]


def _text(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _with_code(text: str) -> Markup:
    """Return a sentence of ours with `code` between backticks as elements."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
