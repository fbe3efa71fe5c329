"""`rlhf evaluate --frontier RUN`: over-optimisation along a PPO run, as numbers, a page of text and a figure."""

import json
from pathlib import Path

from rlhf.config import EvaluateConfig
from rlhf.config.reading.loader import save_config
from rlhf.evaluation.assembly import judge_inputs
from rlhf.evaluation.frontier import frontier, frontier_inputs
from rlhf.evaluation.table import Cell, markdown_table, text_table
from rlhf.printable import printable
from rlhf.report.figure import drawn_beside
from rlhf.report.reading.frontier import DIRECTORY, FILE, Frontier, frontier_of
from rlhf.report.sections.frontier import HEADER, about, charts_of, laws_told, rows_of
from rlhf.stage.frame import completed, fingerprint
from rlhf.training.processes import Processes
from rlhf.training.storage.atomic import write_output
from rlhf.training.storage.run_directory import RunDirectory


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
    output_dir = Path(config.output_dir) / DIRECTORY
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
            text = frontier(own, run, processes.device, output_dir).to_json()
            write_output(output_dir / FILE, text)
            found = frontier_of(json.loads(text), str(output_dir / FILE))
            write_output(output_dir / "frontier.svg", figure_of(found))
            write_output(summary, markdown_of(found))
            print(printable(table_of(found)), flush=True)
            names = [FILE, "frontier.svg", "frontier.md", *(f"{name}.jsonl" for name in inputs.policies)]
            directory.mark_complete([output_dir / name for name in names])
    processes.wait()
    return summary


def figure_of(found: Frontier) -> str:
    """Return the figure: gain over the start against sqrt(KL), for PPO and for the best of n, with the fitted laws."""
    return drawn_beside("Gain over the start against distance", charts_of(found))


def table_of(found: Frontier) -> str:
    """Return the points as a table for a terminal, and what they say."""
    return "\n\n".join([text_table(HEADER, rows_of(found)), *_told(found)])


def markdown_of(found: Frontier) -> str:
    """Return the points, what they say, and the answers that the judges dispute most, as Markdown."""
    disputed: list[list[Cell]] = [
        [each.policy, each.prompt, each.response, each.proxy, each.gold] for each in found.disputed
    ]
    parts = [
        "# Gain over the start against distance",
        "![gain against sqrt(KL)](frontier.svg)",
        markdown_table(HEADER, rows_of(found)),
        *_told(found),
        "## Answers that the proxy likes and the gold judge does not",
        markdown_table(["policy", "prompt", "answer", "proxy", "gold"], disputed),
    ]
    return "\n\n".join(parts) + "\n"


def _told(found: Frontier) -> list[str]:
    return [about(found), f"Best by gold: {found.best}.", *laws_told(found)]
