"""Tests of rlhf.report.export: other tools get the numbers under the names that they know."""

import csv
import json

import pytest

from rlhf.cli import main
from rlhf.report.export import safe_cell


@pytest.fixture
def run(planting, tmp_path):
    found = planting.plant(tmp_path / "run", steps=10)
    path = found / "ppo" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3] |= {"=1+1": 5.0, "objective/kl": None, "note": "text"}
    planting.write_rows(path, rows)
    return found


def rows_of(run):
    return [json.loads(line) for line in (run / "ppo" / "metrics.jsonl").read_text().splitlines()]


def test_csv_has_every_number_and_no_formula(run, capsys):
    assert main(["export-metrics", str(run)]) == 0
    path = run / "ppo-metrics.csv"
    assert capsys.readouterr().out == f"results: {path}\n"
    with path.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert "'=1+1" in found[0] and "=1+1" not in found[0] and "note" not in found[0]
    assert found[3]["'=1+1"] == "5.0" and found[3]["objective/kl"] == "" and found[0]["'=1+1"] == ""
    for name in ("step", "objective/scores", "loss/policy_avg"):
        assert [float(row[name]) for row in found] == [row[name] for row in rows_of(run)]


@pytest.mark.parametrize("text", ["=cmd()", "+1", "-x", "@y", "\tx", "\rx"])
def test_a_text_that_begins_as_a_formula_is_marked(text):
    assert safe_cell(text) == f"'{text}"
    assert safe_cell(f"a{text}") == f"a{text}"


def test_jsonl_goes_where_one_says(run, tmp_path):
    assert (
        main(["export-metrics", str(run), "--format", "jsonl", "--output", str(tmp_path / "deep" / "m=1.jsonl")]) == 0
    )
    rows = [json.loads(line) for line in (tmp_path / "deep" / "m=1.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 11)) and "objective/kl" not in rows[3]


def test_rldoctor_gets_its_own_names(run):
    assert main(["export-metrics", str(run), "--format", "rldoctor"]) == 0
    found = [json.loads(line) for line in (run / "ppo-rldoctor.jsonl").read_text().splitlines()]
    for ours, theirs in (
        ("objective/scores", "reward"),
        ("objective/kl", "kl"),
        ("reward/model/mean", "rewards/model/mean"),
    ):
        assert [row.get(theirs) for row in found] == [row[ours] for row in rows_of(run)]
    assert found[0]["truncation_rate"] == pytest.approx(1 - rows_of(run)[0]["val/share_ended"])
    assert not any(name.startswith("objective/scores") or "correlation" in name for row in found for name in row)


def test_rlprobe_gets_a_recording_with_samples(run):
    pq = pytest.importorskip("pyarrow.parquet")
    assert main(["export-metrics", str(run), "--format", "rlprobe"]) == 0
    place = run / "ppo-rlprobe"
    manifest = json.loads((place / "manifest.json").read_text())
    assert (manifest["schema_version"], manifest["algorithm"], manifest["run_id"]) == (1, "ppo", "ppo")
    steps = pq.read_table(place / "steps.parquet").to_pylist()
    assert [row["reward_mean"] for row in steps] == [row["objective/scores"] for row in rows_of(run)]
    assert steps[3]["kl_mean"] is None and steps[3]["extra.=1+1"] == 5.0
    assert steps[0]["reward_component.model"] == rows_of(run)[0]["reward/model/mean"]
    (first, *_) = pq.read_table(place / "samples" / "part-000000.parquet").to_pylist()
    (path, *_) = sorted((run / "ppo" / "samples").glob("*.jsonl"))
    sample = json.loads(path.read_text().splitlines()[0])
    assert (first["prompt_text"], first["completion_text"]) == (sample["prompt"], sample["response"])
    assert first["reward_total"] == sample["score"]


def test_a_stage_without_metrics_is_refused(run, capsys):
    assert main(["export-metrics", str(run), "--stage", "sft"]) == 2
    assert "no rows of metrics of stage sft; it has ['ppo']" in capsys.readouterr().err
