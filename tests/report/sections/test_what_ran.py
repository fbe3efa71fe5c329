"""Tests of rlhf.report.sections.what_ran and of the events of rlhf.report.sections.curves."""

import json

import pytest

from rlhf.report.reading.run import read_run
from rlhf.report.sections.curves import stage_curves, stage_events
from rlhf.report.sections.what_ran import duration, what_ran


def test_machine_data_time_and_phases_are_told(planting, tmp_path):
    run = planting.plant(tmp_path)
    starts = [{"time": "t", "from_step": 0}, {"time": "t", "from_step": 40}]
    stops = [{"time": "t", "after_step": 55, "reason": "KL above 20"}]
    facts = {"machine": "m1", "data": ["p.jsonl: read 9, kept 8"], "starts": starts, "stops": stops}
    (run / "ppo" / "circumstances.json").write_text(json.dumps(facts))
    phases = {"generation": {"seconds": 1.5, "share": 0.75}, "other": {"seconds": 0.5, "share": 0.25}}
    (run / "ppo" / "profile.json").write_text(json.dumps({"phases": phases, "peak_memory_gib": 1.25}))
    (run / "evaluate" / "complete.json").unlink()
    ppo, evaluation = what_ran(read_run(run))
    assert ppo.state == "complete" and evaluation.state.startswith("not complete")
    assert ppo.facts == [
        ("machine", "m1"),
        ("data", "p.jsonl: read 9, kept 8"),
        ("resumed", "after step 40"),
        ("stopped by a guard", "after step 55: KL above 20"),
    ]
    assert dict(ppo.times)["steps"] == "60" and dict(ppo.times)["peak memory, GiB"] == "1.25"
    assert ppo.phases == [["generation", "1.50", "75.0%"], ["other", "0.50", "25.0%"]]
    assert evaluation.times == []


def test_resumed_starts_early_ends_and_checkpoints_are_marked(planting, tmp_path):
    run = planting.plant(tmp_path)
    happened = {"starts": [{"from_step": 0}, {"from_step": 40}], "stops": [{"after_step": 44, "reason": "KL"}]}
    (run / "ppo" / "circumstances.json").write_text(json.dumps(happened))
    (run / "ppo" / "checkpoints" / "step-000020").mkdir(parents=True)
    config = run / "ppo" / "config.yaml"
    config.write_text(config.read_text() + "target_kl: 0.1\nepochs: 4\nminibatches: 2\n")
    rows = planting.metrics({})
    rows[6]["updates"] = 3.0
    planting.write_rows(run / "ppo" / "metrics.jsonl", rows)
    events = [(event.x, event.label) for event in stage_events(read_run(run).ppo)]
    assert events == [
        (40, "resumed at step 40"),
        (44, "stopped by a guard at step 44"),
        (7, "epochs ended early by target_kl at step 7"),
        (20, "checkpoint at step 20"),
    ]
    (curves,) = stage_curves([read_run(run)], is_one_recipe=False)
    assert curves.events == ["resumed", "stopped by a guard", "epochs ended early by target_kl", "checkpoint"]


def test_rollbacks_the_best_step_and_an_early_end_are_marked(planting, tmp_path):
    run = planting.plant(tmp_path)
    config = run / "ppo" / "config.yaml"
    config.write_text(config.read_text().replace("steps: 60", "steps: 100") + "best: {metric: evaluation/scores}\n")
    rows = planting.metrics({})
    for row in rows:
        row["rollback/count"] = (row["step"] > 20) + (row["step"] > 30)
    rows[-1]["best/step"] = 50
    planting.write_rows(run / "ppo" / "metrics.jsonl", rows)
    (run / "ppo" / "complete.json").write_text("{}")
    assert [(event.x, event.label) for event in stage_events(read_run(run).ppo)] == [
        (20, "went back after a guard at step 20"),
        (30, "went back after a guard at step 30"),
        (50, "best evaluation/scores at step 50"),
        (60, "ended early at step 60"),
    ]
    (curves,) = stage_curves([read_run(run)], is_one_recipe=False)
    assert curves.events == ["went back after a guard", "best evaluation/scores", "ended early"]
    assert not any("rollback" in chart.title for chart in [*curves.shown, *curves.more])


def test_curves_come_in_a_fixed_order_and_unknown_metrics_follow(planting, tmp_path):
    run = planting.plant(tmp_path, {"reward/mine/mean": (planting.rising(0, 1), 0.1)})
    (curves,) = stage_curves([read_run(run)], is_one_recipe=False)
    assert [chart.title for chart in curves.shown][:3] == [
        "Score: mean of an episode", "Score with the KL penalty", "KL to the reference",
    ]  # fmt: skip
    assert "reward/mine/mean" in [chart.title for chart in curves.more]


@pytest.mark.parametrize(("seconds", "words"), [(0.1234, "0.123 s"), (61, "1 min 1 s"), (7500, "2 h 5 min")])
def test_times_are_told_in_words(seconds, words):
    assert duration(seconds) == words
