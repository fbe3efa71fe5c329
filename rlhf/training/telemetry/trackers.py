"""The trackers of accelerate: tensorboard, wandb, trackio and others get a run's numbers, some its samples too."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

from rlhf.printable import escaped_markdown, one_line, printable, text_of
from rlhf.training.telemetry.metrics import row_of

if TYPE_CHECKING:
    from accelerate import Accelerator

SAMPLES = "samples"
"""The name of the table."""
COLUMNS = ("prompt", "response", "score", "kl", "tokens", "ended")
"""Of the table, from the rows in samples/."""
Cell = str | int | float | None


class Trackers:
    """Sends metrics to the trackers that the accelerator was made with (`log_with`); without any it does nothing."""

    def __init__(
        self,
        accelerator: "Accelerator",
        directory: Path,
        *,
        project: str,
        config: Mapping[str, Any],
        first_step: int = 0,
    ) -> None:
        """Start the trackers.

        Args:
            accelerator: made with `log_with`, or without for no tracker.
            directory: where trackers write files, `events` in the run directory.
            project: the name under which a tracker files the run.
            config: the resolved config, shown with the numbers.
            first_step: the first step that will be logged; tensorboard hides what it holds from there on.
        """
        self._accelerator = accelerator
        self._is_active = bool(accelerator.log_with)
        if not self._is_active:
            return
        accelerator.project_configuration.logging_dir = str(directory)
        if accelerator.is_main_process:
            directory.mkdir(parents=True, exist_ok=True)
        accelerator.init_trackers(
            project, config=_flat(config), init_kwargs={"tensorboard": {"purge_step": first_step}}
        )

    def log(self, step: int, metrics: Mapping[str, SupportsFloat | str | None]) -> None:
        """Send the finite numbers of one step."""
        if self._is_active:
            row = row_of(step, metrics)
            numbers = {key: value for key, value in row.items() if isinstance(value, int | float) and key != "step"}
            self._accelerator.log(numbers, step=step)

    def log_samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send samples as a table to each tracker that has one: tensorboard, wandb and trackio.

        Args:
            step: whose samples they are.
            rows: as they stand in samples/; none sends nothing.
        """
        if not (self._is_active and rows and self._accelerator.is_main_process):
            return
        table = [[_cell(row.get(column)) for column in COLUMNS] for row in rows]
        for tracker in self._accelerator.trackers:
            send = _SENDERS.get(tracker.name)
            if send is not None:
                send(tracker, step, table)

    def close(self) -> None:
        """End the trackers. The accelerator stays usable, which its own `end_training` would prevent."""
        if self._is_active:
            for tracker in self._accelerator.trackers:
                tracker.finish()
            # The next stage in this process starts its own; without this the accelerator would start ours again.
            self._accelerator.trackers = []
        self._is_active = False


def _cell(value: object) -> Cell:
    """Return a value as a table takes it: a text, or a conversation as text, without what controls a terminal."""
    if value is None or isinstance(value, int | float):
        return value
    return printable(text_of(value))


def _shown(cell: Cell) -> str:
    """Return a cell for Markdown: what a model wrote stays text, on one line."""
    if isinstance(cell, str):
        return escaped_markdown(one_line(cell))
    return "" if cell is None else str(cell) if isinstance(cell, bool | int) else f"{cell:.4g}"


def _to_tensorboard(tracker: Any, step: int, table: list[list[Cell]]) -> None:
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_shown(cell) for cell in row] for row in table)]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    tracker.log({SAMPLES: text}, step=step)


def _to_wandb(tracker: Any, step: int, table: list[list[Cell]]) -> None:
    tracker.log_table(SAMPLES, columns=list(COLUMNS), data=table, step=step)


def _to_trackio(tracker: Any, step: int, table: list[list[Cell]]) -> None:
    make_table = importlib.import_module("trackio").Table  # an optional package, which is there when its tracker is
    shown = [[_shown(cell) if isinstance(cell, str) else cell for cell in row] for row in table]
    tracker.log({SAMPLES: make_table(columns=list(COLUMNS), data=shown)}, step=step)


_SENDERS: dict[str, Callable[[Any, int, list[list[Cell]]], None]] = {
    "tensorboard": _to_tensorboard,
    "wandb": _to_wandb,
    "trackio": _to_trackio,
}
"""How the table goes to a tracker, by its name at accelerate; those that are not here get the numbers alone."""


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    """Name nested values by their path, `ppo.kl_coef`, as trackers want them."""
    flat: dict[str, int | float | str | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, int | float | str | bool) else str(value)
    return flat
