"""The page of a study, its figures, and the numbers as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rlhf.disk import write_atomic
from rlhf.lab.paint import svg
from rlhf.lab.section import Section, Settings, Table
from rlhf.printable import escaped_markdown, one_line
from rlhf.training.telemetry.circumstances import LIBRARIES, circumstances

PAGE, FIGURES, RESULTS = "lab.md", "figures", "results.json"
_LIBRARIES = (*LIBRARIES, "matplotlib")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A section and how long it took."""

    section: Section
    seconds: float


def write_page(directory: Path, results: Sequence[Result], settings: Settings) -> None:
    """Write lab.md, results.json and the figures of the last result, each file whole or not at all, the page last.

    Call it after every experiment: it relies on the earlier calls for the other figures.

    Raises:
        OSError: the directory cannot be written.
    """
    names = [figure.name for result in results for figure in result.section.figures]
    if len(set(names)) != len(names):
        raise ValueError(f"two figures have one name: {sorted(names)}")
    (directory / FIGURES).mkdir(parents=True, exist_ok=True)
    for figure in results[-1].section.figures:
        write_atomic(directory / FIGURES / f"{figure.name}.svg", svg(figure))
    around = circumstances(_LIBRARIES)
    content = {**asdict(settings), **around, "experiments": [asdict(result) for result in results]}
    write_atomic(directory / RESULTS, json.dumps(content, indent=1) + "\n")
    write_atomic(directory / PAGE, markdown(results, settings, around))


def written_files(directory: Path, results: Sequence[Result]) -> list[Path]:
    """Return what the calls of `write_page` wrote."""
    figures = [directory / FIGURES / f"{figure.name}.svg" for result in results for figure in result.section.figures]
    return [directory / PAGE, directory / RESULTS, *figures]


def markdown(results: Sequence[Result], settings: Settings, around: dict[str, str]) -> str:
    """Return the page."""
    parts = [
        "# The lecture, measured",
        "Written by `rlhf lab`: what a lecture on policy gradients says, next to what this machine measured. "
        "The mathematics is that of `rlhf/functional/`, which trains the language models; exact numbers come from "
        "`rlhf/oracle/`. Every finding is computed from the numbers above it.",
    ]
    if settings.quick:
        parts.append("**A quick run, with tiny sizes: it shows that everything works, and its numbers mean little.**")
    parts += [_section(number, result.section) for number, result in enumerate(results, 1)]
    seconds = Table(
        header=["experiment", "seconds"], rows=[[result.section.name, f"{result.seconds:.1f}"] for result in results]
    )
    parts += [
        "## Circumstances",
        "\n".join(f"- {name}: {value}" for name, value in {**around, "seed": settings.seed}.items()),
        table(seconds),
    ]
    return "\n\n".join(parts) + "\n"


def table(content: Table) -> str:
    """Return a Markdown table under its title; cells are shown as they are."""
    rows = [content.header, ["---"] * len(content.header), *content.rows]
    lines = ["| " + " | ".join(escaped_markdown(one_line(cell)) for cell in row) + " |" for row in rows]
    return "\n".join([f"{content.title}:\n", *lines] if content.title else lines)


def _section(number: int, section: Section) -> str:
    parts = [f"## {number}. {section.title}", f"**The lecture says.** {section.statement}"]
    if section.formula:
        parts.append("\n".join(f"    {line}" for line in section.formula.splitlines()))
    parts.append(f"**Method.** {section.method}")
    parts += [table(content) for content in section.tables]
    parts += [f"![{figure.title}]({FIGURES}/{figure.name}.svg)" for figure in section.figures]
    parts.append(f"**Finding.** {section.finding}")
    return "\n\n".join(parts)
