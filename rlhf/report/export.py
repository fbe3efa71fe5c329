"""`rlhf export-metrics`: a stage's metrics, and its samples, as other tools read them."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlhf.errors import ConfigError
from rlhf.report.options import ExportOptions
from rlhf.report.reading.run import Run, Stage, read_run
from rlhf.training.storage.atomic import write_output

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A cell of text that begins so is a formula to a spreadsheet."""
RLDOCTOR = {
    "objective/rlhf_reward": "objective/rlhf_reward",
    "objective/scores": "reward",
    "objective/scores_std": "reward_std",
    "objective/kl": "kl",
    "objective/entropy": "entropy",
    "policy/clipfrac_avg": "policy/clipfrac_avg",
    "val/explained_variance": "explained_variance",
    "val/response_length": "response_length",
    "loss/policy_avg": "policy_loss",
    "grad_norm/policy": "grad_norm",
    "lr/policy": "learning_rate",
    "seconds": "step_time",
    "evaluation/scores": "eval_score",
    "profile/tokens_per_second": "throughput",
}
"""Our names, and those that rldoctor 0.2 knows for the same; `truncation_rate` and rewards/NAME/mean are added."""
RLPROBE = {
    "objective/scores": "reward_mean",
    "objective/scores_std": "reward_std",
    "objective/kl": "kl_mean",
    "objective/entropy": "entropy_mean",
    "val/ratio": "ratio_mean",
    "policy/clipfrac_avg": "clip_fraction",
    "loss/value_avg": "value_loss",
    "val/explained_variance": "value_explained_variance",
    "val/clipfrac_avg": "value_clip_fraction",
    "loss/policy_avg": "loss",
    "lr/policy": "lr",
    "grad_norm/policy": "grad_norm",
    "val/response_length": "completion_len_mean",
    "val/share_ended": "eos_rate",
    "seconds": "step_time_s",
}
"""Our names, and the columns of rlprobe 0.1; other numbers become `extra.NAME`, rewards `reward_component.NAME`."""
Row = dict[str, Any]


def export_metrics(options: ExportOptions) -> Path:
    """Write a run's metrics in a format, and return the path.

    Raises:
        ConfigError: there is no run, or it has no metrics.
        CheckpointError: a file cannot be read or written.
    """
    stage = _stage(read_run(options.run), options.stage)
    name = {"rlprobe": f"{stage.kind}-rlprobe", "rldoctor": f"{stage.kind}-rldoctor.jsonl"}
    output = options.output or options.run / name.get(options.format, f"{stage.kind}-metrics.{options.format}")
    _WRITERS[options.format](stage, output)
    return output


def _stage(run: Run, kind: str | None) -> Stage:
    """Return the stage that was asked for; without one PPO, else the last that has metrics."""
    having = {name: stage for name, stage in run.stages.items() if stage.metrics.rows}
    chosen = kind or ("ppo" if "ppo" in having else next(reversed(having), ""))
    if chosen not in having:
        raise ConfigError(f"{run.path}: no rows of metrics{f' of stage {kind}' if kind else ''}; it has {[*having]}")
    return having[chosen]


def _rows(stage: Stage) -> list[Row]:
    """Return the finite numbers of every row."""
    return [
        {name: value for name, value in row.items() if isinstance(value, int | float) and not isinstance(value, bool)}
        for row in stage.metrics.rows
    ]


def _component(name: str) -> str | None:
    """Return the reward whose mean a metric is."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 and parts[0] == "reward" and parts[2] == "mean" else None


def _write_csv(stage: Stage, output: Path) -> None:
    rows = _rows(stage)
    names = ["step", *dict.fromkeys(name for row in rows for name in row if name != "step")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([safe_cell(name) for name in names])
    writer.writerows([row.get(name, "") for name in names] for row in rows)
    write_output(output, text.getvalue())


def safe_cell(text: str) -> str:
    """Return a text that a spreadsheet takes for a text: a leading `=`, `+`, `-` or `@` gets an apostrophe."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _write_jsonl(stage: Stage, output: Path) -> None:
    write_output(output, _lines(_rows(stage)))


def _write_rldoctor(stage: Stage, output: Path) -> None:
    rows = []
    for row in _rows(stage):
        told: Row = {"step": row["step"]}
        for name, value in row.items():
            component = _component(name)
            if name in RLDOCTOR:
                told[RLDOCTOR[name]] = value
            elif component is not None:
                told[f"rewards/{component}/mean"] = value
        if "val/share_ended" in row:
            told["truncation_rate"] = 1 - row["val/share_ended"]
        rows.append(told)
    write_output(output, _lines(rows))


def _write_rlprobe(stage: Stage, output: Path) -> None:
    """Write a directory as rlprobe's recorder does: manifest.json, steps.parquet, samples/."""
    import pyarrow as pa  # slow to load, and needed here alone
    import pyarrow.parquet as pq

    starts = stage.circumstances.get("starts") or [{}]
    manifest = {
        "schema_version": 1,
        "run_id": stage.path.name,
        "created_at": str(starts[0].get("time", "1970-01-01T00:00:00+00:00")),
        "algorithm": stage.kind,
        "model_name": str(stage.config.get("model", {}).get("path", "")),
        "trainer_config": dict(stage.config),
    }
    write_output(output / "manifest.json", json.dumps(manifest, indent=1, default=str) + "\n")
    tables = {"steps.parquet": [_probe_step(row) for row in _rows(stage)]}
    if stage.samples:
        tables["samples/part-000000.parquet"] = _probe_samples(stage)
    for name, rows in tables.items():
        columns = dict.fromkeys(key for row in rows for key in row)
        buffer = io.BytesIO()
        pq.write_table(pa.table({key: [row.get(key) for row in rows] for key in columns}), buffer, compression="zstd")
        write_output(output / name, buffer.getvalue())


def _probe_step(row: Mapping[str, Any]) -> Row:
    told: Row = {"step": int(row["step"]), "rank": 0}
    for name, value in row.items():
        component = _component(name)
        if name in RLPROBE:
            told[RLPROBE[name]] = float(value)
        elif component is not None:
            told[f"reward_component.{component}"] = float(value)
        elif name != "step":
            told[f"extra.{name}"] = float(value)
    if "val/share_ended" in row:
        told["truncation_rate"] = 1.0 - row["val/share_ended"]
    return told


def _probe_samples(stage: Stage) -> list[Row]:
    return [
        {
            "step": sample.step,
            "sample_id": f"{sample.step}-{place}",
            "rank": 0,
            "prompt_text": sample.prompt,
            "completion_text": sample.response,
            "reward_total": sample.score,
            "kl_contribution": sample.kl,
            "completion_len": sample.length,
            "truncated": None if sample.ended is None else not sample.ended,
        }
        for place, sample in enumerate(stage.samples)
    ]


def _lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


_WRITERS: dict[str, Callable[[Stage, Path], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "rldoctor": _write_rldoctor,
    "rlprobe": _write_rlprobe,
}
