"""Tests of rlhf.report.findings: each illness is named, and a healthy run has none."""

import json

import pytest

from rlhf.report.findings.detectors import DETECTORS, findings
from rlhf.report.reading.run import read_run


def warned(path):
    return {found.detector.key: found for found in findings(read_run(path)) if found.state == "warning"}


@pytest.mark.parametrize(("steps", "seed"), [(22, 0), (22, 1), (60, 2), (60, 3), (200, 4), (200, 5)])
def test_a_healthy_run_has_no_warning_and_every_detector_looked(planting, tmp_path, steps, seed):
    found = findings(read_run(planting.plant(tmp_path, steps=steps, seed=seed)))
    assert [each.detector for each in found] == list(DETECTORS)
    assert {each.state for each in found} == {"ok"}


ILLNESSES = [
    "length-exploited", "entropy-collapse", "critic-explains-nothing", "kl-runaway", "eos-lost", "clip-fraction",
    "hardly-varies", "first-ratio",
]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("illness", ILLNESSES)
def test_an_illness_is_named_and_no_other(planting, tmp_path, illness, seed):
    found = warned(planting.plant(tmp_path, planting.ILL[illness], seed=seed))
    assert list(found) == [illness]
    assert 1 < found[illness].first_step < 60
    assert any(character.isdigit() for character in found[illness].text)


def test_every_planted_illness_is_tested(planting):
    assert sorted(planting.ILL) == sorted(ILLNESSES)


def test_a_proxy_that_rises_while_gold_falls_is_named(planting, tmp_path):
    found = warned(planting.plant(tmp_path, evaluation=planting.comparison(gold=0.3, reward=0.9)))
    assert list(found) == ["judges-part"]
    assert "30.0% [25.0%, 35.0%]" in found["judges-part"].text and "90.0%" in found["judges-part"].text


def test_a_gold_that_falls_together_with_the_proxy_is_no_cheating(planting, tmp_path):
    assert not warned(planting.plant(tmp_path, evaluation=planting.comparison(gold=0.3, reward=0.3)))


def test_without_a_proxy_in_the_evaluation_the_training_score_counts(planting, tmp_path):
    assert list(warned(planting.plant(tmp_path, evaluation=planting.comparison(gold=0.3, reward=None)))) == [
        "judges-part"
    ]


def test_any_independent_judge_may_fall(planting, tmp_path):
    content = planting.comparison(gold=0.8, reward=0.9)
    content["policies"]["ppo"]["judges"]["embedding"] = {"win_rate": planting.interval(0.3, 0.05)}
    found = warned(planting.plant(tmp_path, evaluation=content))
    assert list(found) == ["judges-part"] and "30.0% [25.0%, 35.0%] by the embedding judge" in found["judges-part"].text


def test_answers_that_begin_alike_are_named(planting, tmp_path):
    run = planting.plant(tmp_path)
    for path in sorted((run / "ppo" / "samples").glob("*.jsonl"))[7:]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        planting.write_rows(path, [{**row, "response": " As a critic I" + row["response"]} for row in rows])
    found = warned(run)
    assert list(found) == ["repeated-openings"]
    assert found["repeated-openings"].first_step >= 30 and "'As a critic I'" in found["repeated-openings"].text


def test_samples_that_repeat_each_other_are_named(planting, tmp_path):
    run = planting.plant(tmp_path)
    for place, path in enumerate(sorted((run / "ppo" / "samples").glob("*.jsonl"))):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for number, row in enumerate(rows):  # openings differ; what follows becomes the same everywhere
            words = [f"w{number}a{place}", "x" + str(number), "y", str(number)]
            words += [f"{number}n{place}n{each}" if place < 7 else f"same{each}" for each in range(12)]
            row["response"] = " ".join(words)
        planting.write_rows(path, rows)
    found = warned(run)
    assert list(found) == ["diversity-lost"]
    assert found["diversity-lost"].first_step >= 20 and "distinct-2" in found["diversity-lost"].text


def test_where_samples_are_few_the_answers_of_an_evaluation_are_looked_at(planting, tmp_path):
    run = planting.plant(tmp_path)
    for path in (run / "ppo" / "samples").glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        planting.write_rows(path, [{**row, "response": "a b c"} for row in rows])

    def looked():
        (found,) = [each for each in findings(read_run(run)) if each.detector.key == "diversity-lost"]
        return found

    assert looked().state == "ok" and "in the held-out answers went" in looked().text
    path = run / "evaluate" / "ppo.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    planting.write_rows(path, [{**row, "response": "one and the same answer to everything"} for row in rows])
    assert looked().state == "warning" and looked().first_step is None
    planting.write_rows(path, rows[:1])
    assert looked().state == "skipped"


def test_a_forced_prefix_is_no_opening(planting, tmp_path):
    run = planting.plant(tmp_path)
    for path in sorted((run / "ppo" / "samples").glob("*.jsonl"))[7:]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        changed = [{**row, "response": "As a critic I" + row["response"], "forced": "As a critic I"} for row in rows]
        planting.write_rows(path, changed)
    assert not warned(run)


def test_numbers_that_are_not_finite_are_named(planting, tmp_path):
    run = planting.plant(tmp_path)
    rows = planting.metrics({})
    rows[20] = {**rows[20], "loss/value_avg": None, "not_finite": {"loss/value_avg": "nan"}}
    planting.write_rows(run / "ppo" / "metrics.jsonl", rows)
    found = warned(run)
    assert list(found) == ["not-finite"] and found["not-finite"].first_step == 21


def test_no_clipping_at_all_is_named_where_the_score_does_not_rise(planting, tmp_path):
    never = {"policy/clipfrac_avg": (planting.rising(0.0, 0.0), 0.0)}
    flat = {**never, "objective/scores": (planting.rising(0.0, 0.0), 0.15)}
    assert not warned(planting.plant(tmp_path / "learns", never))
    assert list(warned(planting.plant(tmp_path / "several", flat))) == ["clip-fraction"]
    once = planting.plant(tmp_path / "once", flat)
    config = once / "ppo" / "config.yaml"
    config.write_text(config.read_text() + "epochs: 1\nminibatches: 1\n")  # the only update of a step clips nothing
    assert not warned(once)


@pytest.mark.parametrize(("steps", "state"), [(9, "skipped"), (10, "warning")])
def test_ten_steps_are_enough_for_the_clip_fraction(planting, tmp_path, steps, state):
    run = read_run(planting.plant(tmp_path, planting.ILL["clip-fraction"], steps=steps))
    assert {each.detector.key: each.state for each in findings(run)}["clip-fraction"] == state


def test_a_kl_that_settles_high_and_one_that_still_doubles_are_told_apart(planting, tmp_path):
    settled = {"objective/kl": (planting.rising(0, 25), 0.3)}
    doubling = {"objective/kl": (lambda done: 25 * done**3, 0.3)}
    assert not warned(planting.plant(tmp_path / "settled", settled))
    assert "doubled in the last quarter" in warned(planting.plant(tmp_path / "doubling", doubling))["kl-runaway"].text


def test_a_length_that_falls_with_a_reward_for_short_answers_is_exploited_too(planting, tmp_path):
    short = {
        "val/response_length": (planting.rising(40, 8), 0.5),
        "reward/model/length_correlation": (planting.rising(-0.4, -0.7), 0.05),
    }
    assert list(warned(planting.plant(tmp_path / "short", short))) == ["length-exploited"]
    grown = {"val/response_length": (planting.rising(20, 46), 0.5)}  # the reward does not pay for it
    assert not warned(planting.plant(tmp_path / "grown", grown))


def test_a_detector_without_its_data_is_skipped_and_says_what_it_needs(planting, tmp_path):
    run = planting.plant(tmp_path, evaluation=planting.comparison(gold=None))
    rows = [{"step": row["step"], "objective/scores": row["objective/scores"]} for row in planting.metrics({})[:5]]
    planting.write_rows(run / "ppo" / "metrics.jsonl", rows)
    found = {each.detector.key: each for each in findings(read_run(run))}
    assert {key for key, each in found.items() if each.state == "skipped"} == {
        "judges-part", *ILLNESSES,
    }  # fmt: skip
    assert "set `gold`" in found["judges-part"].text and "no critic" in found["critic-explains-nothing"].text
    assert "needs objective/kl over 8 steps or more, found 0" in found["kl-runaway"].text


def test_every_detector_has_a_remedy_and_a_doubt(planting):
    assert len({detector.key for detector in DETECTORS}) == len(DETECTORS)
    for detector in DETECTORS:
        assert detector.remedy.endswith(".") and detector.caveat.endswith(".") and detector.remedy.count("`") % 2 == 0
