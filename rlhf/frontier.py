"""`rlhf evaluate --frontier RUN`: over-optimisation along a PPO run, as numbers, a page of text and a figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlhf.config import EvaluateConfig
from rlhf.config.reading.loader import save_config
from rlhf.evaluation.assembly import judge_inputs
from rlhf.evaluation.frontier import Frontier, Point, frontier, frontier_inputs
from rlhf.evaluation.statistics.bootstrap import Interval
from rlhf.evaluation.statistics.overoptimisation import Kind
from rlhf.evaluation.table import Cell, markdown_table, text_table
from rlhf.printable import printable
from rlhf.report.charts.curves import Chart
from rlhf.report.charts.line import Line
from rlhf.report.figure import drawn_beside
from rlhf.stage import completed, fingerprint
from rlhf.training.processes import Processes
from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.run_directory import RunDirectory

TITLES: dict[Kind, str] = {"ppo": "PPO", "best_of": "Best of n"}
SMOOTH = 60
"""Points of a fitted curve."""
_HEADER = ["policy", "KL, nats", "sqrt(KL)", "gold gain", "proxy gain"]


def trace(config: EvaluateConfig, run: Path) -> Path:
    """Score every checkpoint of a PPO run and the best of n, and write frontier.json, frontier.md and frontier.svg.

    Args:
        config: of `rlhf evaluate`: prompts, judges, decoding; its policies are replaced by those of the run. Results go
            to `frontier` in its output_dir.
        run: the directory of the PPO stage.

    Returns:
        The summary.

    Raises:
        RlhfError: bad config, data or model.
    """
    output_dir = Path(config.output_dir) / "frontier"
    own = config.model_copy(update={"output_dir": str(output_dir)})
    inputs = frontier_inputs(own, run)
    models = [str(each) for each in inputs.policies.values()]
    mark = fingerprint(own, [*models, str(config.reward_model), config.prompts.path, *judge_inputs(config)])
    summary = output_dir / "frontier.md"
    if completed(own, mark):
        return summary
    processes = Processes()
    if processes.is_main:
        with RunDirectory(output_dir, fingerprint=mark) as directory:
            save_config(own, output_dir / "config.yaml")
            found = frontier(own, run, processes.device, output_dir)
            write_output(output_dir / "frontier.json", found.to_json())
            write_output(output_dir / "frontier.svg", figure_of(found))
            write_output(summary, markdown_of(found))
            print(printable(table_of(found)), flush=True)
            names = ["frontier.json", "frontier.svg", "frontier.md", *(f"{name}.jsonl" for name in inputs.policies)]
            directory.mark_complete([output_dir / name for name in names])
    processes.wait()
    return summary


def figure_of(found: Frontier) -> str:
    """Return the figure: gain over the start against sqrt(KL), for PPO and for the best of n, with the fitted laws."""
    charts = [_chart(found, kind) for kind in TITLES if any(point.kind == kind for point in found.points)]
    return drawn_beside("Gain over the start against distance", charts)


def table_of(found: Frontier) -> str:
    """Return the points as a table for a terminal, and what they say."""
    return "\n\n".join([text_table(_HEADER, _rows(found.points)), *_told(found)])


def markdown_of(found: Frontier) -> str:
    """Return the points, what they say, and the answers that the judges dispute most, as Markdown."""
    disputed: list[list[Cell]] = [
        [each.policy, each.prompt, each.response, each.proxy, each.gold] for each in found.disputed
    ]
    parts = [
        "# Gain over the start against distance",
        "![gain against sqrt(KL)](frontier.svg)",
        markdown_table(_HEADER, _rows(found.points)),
        *_told(found),
        "## Answers that the proxy likes and the gold judge does not",
        markdown_table(["policy", "prompt", "answer", "proxy", "gold"], disputed),
    ]
    return "\n\n".join(parts) + "\n"


def _told(found: Frontier) -> list[str]:
    lines = [
        f"Gains are in standard deviations of the start's scores, on {found.num_prompts} prompts; gold is the "
        f"{found.gold_judge} judge. The KL of a best of n is its upper bound.",
        f"Best by gold: {found.best}.",
    ]
    for kind, title in TITLES.items():
        for judge, law in found.laws[kind].items():
            if law is None:
                lines.append(f"{title}, {judge}: too few points for a fit.")
                continue
            term = "d" if kind == "best_of" else "log d"
            turn = "never turns" if law.turnover_kl is None else f"is highest at a KL of {law.turnover_kl:.3g} nats"
            lines.append(
                f"{title}, {judge}: gain = d (alpha - beta {term}), alpha {_shown(law.alpha)}, "
                f"beta {_shown(law.beta)}; the fit {turn}."
            )
    return lines


def _rows(points: Sequence[Point]) -> list[list[Cell]]:
    return [[each.name, each.kl, max(each.kl, 0.0) ** 0.5, _shown(each.gold), _shown(each.proxy)] for each in points]


def _chart(found: Frontier, kind: Kind) -> Chart:
    points = sorted((point for point in found.points if point.kind == kind), key=lambda point: point.kl)
    d = np.sqrt(np.maximum([point.kl for point in points], 0.0))
    lines = []
    for colour, judge in ((0, "gold"), (3, "proxy")):
        gains: list[Interval] = [getattr(point, judge) for point in points]
        mean, low, high = (np.array([0.0, *(getattr(gain, end) for gain in gains)]) for end in ("mean", "low", "high"))
        x = np.append(0.0, d)
        lines.append(Line(label=judge, x=x, y=mean, low=low, high=high, points_only=True, colour=colour))
        law = found.laws[kind][judge]
        if law is not None:
            smooth = np.linspace(0.0, float(d.max()), SMOOTH)
            lines.append(Line(label=f"{judge}, fitted", x=smooth, y=law.gain(smooth**2), colour=colour))
    title = f"{TITLES[kind]}: gain over the start"
    return Chart(key=kind, title=title, lines=lines, unit="standard deviations", x_label="sqrt(KL in nats)", level=0.0)


def _shown(interval: Interval) -> str:
    return f"{interval.mean:.3g} [{interval.low:.3g}, {interval.high:.3g}]"
